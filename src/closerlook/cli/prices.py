"""What a study costs before it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closerlook.cli.answer import columns, facts
from closerlook.cli.work import gigaflops, priced
from closerlook.report.words import duration
from closerlook.runs.store import Store
from closerlook.steps.cost import measured_rate
from closerlook.studies import StudyPlan
from closerlook.studies.run import price, study_folder


def price_of(plan: StudyPlan, root: Path, jobs: int) -> dict[str, Any]:
    """The study's steps, those by kind, and an estimate of the time that the unfinished ones take."""
    steps = priced(plan.recipes, Store(root))
    unique = {step["run"]: step for step in steps}
    left = [step for step in unique.values() if step["state"] != "done"]
    flops = sum(step["flops"] for step in left)
    return {
        "study": plan.name, "scale": plan.scale, "seeds": plan.seeds, "rule": plan.rule,
        "folder": study_folder(plan, root), "kinds": price(plan, root), "jobs": jobs,
        "left": {"runs": len(left), "images": sum(step["images"] for step in left), "flops": flops},
        "core_seconds": flops / measured_rate(), "settings": plan.settings, "steps": list(unique.values()),
    }  # fmt: skip


def text(found: Mapping[str, Any], plan: StudyPlan) -> str:
    """The same for people."""
    header = ("kind", "runs", "done", "optimizer steps", "images", "GFLOPs")
    kinds = [(k["kind"], k["runs"], k["done"], k["steps"], k["images"], gigaflops(k)) for k in found["kinds"]]
    blocks = (
        f"{plan.name} at scale {plan.scale}, seeds {', '.join(map(str, plan.seeds))}, rule {plan.rule}; "
        f"results go to {found['folder']}",
        columns(header, kinds),
        f"left to do: {found['left']['runs']} runs, {_estimate(found)}",
        facts({name: value for name, value, _ in plan.settings}),
    )
    return "\n\n".join(blocks)


def _estimate(found: Mapping[str, Any]) -> str:
    if not found["left"]["runs"]:
        return "nothing to wait for"
    if not found["core_seconds"]:
        return "time unknown: the network's operations cannot be counted without its data"
    seconds = found["core_seconds"] / found["jobs"]
    told = f"about {duration(seconds)}" if seconds > 60 else "about a minute"
    return f"{told} with {found['jobs']} at a time (operations over the speed of a matrix product here; a rough guide)"

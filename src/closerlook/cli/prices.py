"""What a study, or all of them together, cost before they run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from closerlook.cli.answer import columns, facts
from closerlook.cli.work import gigaflops, priced
from closerlook.report.words import duration
from closerlook.runs.store import Store
from closerlook.steps.cost import measured_rate
from closerlook.studies import StudyPlan
from closerlook.studies.run import price, study_folder
from closerlook.studies.together import ALL, Whole


def price_of(plan: StudyPlan, root: Path, jobs: int) -> dict[str, Any]:
    """The study's steps, those by kind, and an estimate of the time that the unfinished ones take."""
    steps = {step["run"]: step for step in priced(plan.recipes, Store(root))}
    return {
        "study": plan.name, "scale": plan.scale, "seeds": plan.seeds, "rule": plan.rule,
        "folder": study_folder(plan, root), "kinds": price(plan, root), "jobs": jobs, **_left(steps.values()),
        "settings": plan.settings, "steps": list(steps.values()),
    }  # fmt: skip


def price_of_all(whole: Whole, root: Path, jobs: int) -> dict[str, Any]:
    """Every study's price, and that of all together, where a step that several share counts once."""
    studies = {plan.name: price_of(plan, root, jobs) for plan in whole.plans}
    steps = {step["run"]: step for each in studies.values() for step in each["steps"]}
    told = {"study": ALL, "scale": whole.scale, "folder": whole.folder(root), "jobs": jobs}
    return told | _left(steps.values()) | {"studies": studies}


def _left(steps: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    left = [step for step in steps if step["state"] != "done"]
    flops = sum(step["flops"] for step in left)
    told = {"runs": len(left), "images": sum(step["images"] for step in left), "flops": flops}
    return {"left": told, "core_seconds": flops / measured_rate()}


def text(found: Mapping[str, Any], plan: StudyPlan) -> str:
    """The same for people."""
    header = ("kind", "runs", "done", "optimizer steps", "images", "GFLOPs")
    kinds = [(k["kind"], k["runs"], k["done"], k["steps"], k["images"], gigaflops(k)) for k in found["kinds"]]
    blocks = (
        f"{plan.name} at scale {plan.scale}, seeds {', '.join(map(str, plan.seeds))}, rule {plan.rule}; "
        f"results go to {found['folder']}",
        columns(header, kinds),
        _remaining(found),
        facts({name: value for name, value, _ in plan.settings}),
    )
    return "\n\n".join(blocks)


def text_of_all(found: Mapping[str, Any]) -> str:
    """The price of all studies for people, a row for each."""
    header = ("study", "seeds", "rule", "steps", "left to do", "images", "GFLOPs")
    rows = [
        (name, ", ".join(map(str, one["seeds"])), one["rule"], len(one["steps"]), one["left"]["runs"],
         one["left"]["images"], gigaflops(one["left"]))
        for name, one in found["studies"].items()
    ]  # fmt: skip
    head = f"{', '.join(found['studies'])} at scale {found['scale']}; the report of all goes to {found['folder']}"
    return "\n\n".join((head, columns(header, rows), _remaining(found)))


def _remaining(found: Mapping[str, Any]) -> str:
    return f"left to do: {found['left']['runs']} runs, {_estimate(found)}"


def _estimate(found: Mapping[str, Any]) -> str:
    if not found["left"]["runs"]:
        return "nothing to wait for"
    if not found["core_seconds"]:
        return "time unknown: the network's operations cannot be counted without its data"
    seconds = found["core_seconds"] / found["jobs"]
    told = f"about {duration(seconds)}" if seconds > 60 else "about a minute"
    return f"{told} with {found['jobs']} at a time (operations over the speed of a matrix product here; a rough guide)"

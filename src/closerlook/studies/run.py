"""Run a study: its graph, then verdict, figures and report, in a folder beside its runs."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from closerlook import files
from closerlook.evidence import Verdict
from closerlook.evidence import verdict as verdict_of
from closerlook.launch import Event, launch, pool
from closerlook.report import Report, write
from closerlook.runs.environment import environment
from closerlook.runs.identity import run_id
from closerlook.runs.store import Store, only_one
from closerlook.steps.cost import cost
from closerlook.studies import STUDIES, predictions
from closerlook.studies.plan import Results, StudyPlan


@dataclass(frozen=True)
class StudyOutcome:
    """The verdict of a study, where its files lie, and what its report shows."""

    verdict: Verdict
    report: Path
    folder: Path
    page: Report


def study_folder(plan: StudyPlan, root: Path) -> Path:
    """Where a study's verdict, figures and report go; named by its recipes."""
    text = files.to_json({role: run_id(recipe) for role, recipe in plan.roles.items()}) + plan.rule
    return root / f"study-{plan.name}-{plan.scale}-{files.digest(text)[:8]}"


def run_study(plan: StudyPlan, root: Path, jobs: int, progress: Callable[[Event], None]) -> StudyOutcome:
    """Finish every step of the study and write its report; what is done already is reused.

    Raises
    ------
    StoreError
        Another command works on the same study.
    StepFailedError
        Some step failed; the finished ones are kept.
    """
    folder = study_folder(plan, root)
    with only_one(folder / "LOCK"):
        with pool(jobs) as executor:
            launch(plan.recipes, Store(root), executor, jobs, progress)
        return conclude(plan, root)


def judge(plan: StudyPlan, table: list[dict[str, Any]], results: Results) -> Verdict:
    """The verdict of the plan's rule on its table; a run that diverged counts as guessing."""
    return verdict_of(table, plan.rule, plan.setting, chance=predictions.known_chance(results))


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows arm, seed, quantity, value as CSV, which ``closerlook verdict`` takes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["arm", "seed", "quantity", "value"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def conclude(plan: StudyPlan, root: Path) -> StudyOutcome:
    """Judge the stored numbers and write table, verdict, figures and report."""
    folder, study, results = study_folder(plan, root), STUDIES[plan.name], Results(plan, Store(root))
    table = study.table(results)
    verdict = judge(plan, table, results)
    runs = {role: run_id(recipe) for role, recipe in plan.roles.items()}
    told = {"study": plan.name, "scale": plan.scale, "seeds": plan.seeds, "data": plan.data, "settings": plan.settings}
    files.write_json(folder / "plan.json", {**told, "runs": runs})
    where = _environment(results)
    files.write_json(folder / "environment.json", where)
    files.write_bytes(folder / "table.csv", as_csv(table).encode())
    files.write_json(folder / "verdict.json", {**verdict.to_dict(), "runs": runs})
    figures = study.figures(results)
    for figure in figures:
        files.write_bytes(folder / "figures" / f"{figure.id}.svg", figure.svg.encode())
    page = Report(
        title=f"{plan.name.capitalize()}: scale {plan.scale}",
        question=study.question,
        verdict=verdict.to_dict(),
        figures=figures,
        tables=study.tables(results),
        settings=plan.settings,
        seeds=plan.seeds,
        environment=where,
        costs=_costs(results),
        command=plan.command,
        notes=study.notes,
    )
    return StudyOutcome(verdict, write(page, folder / "report.html"), folder, page)


def _environment(results: Results) -> dict[str, Any]:
    """Where the first run was made, and earlier places of it; what draws the report may be another one."""
    made = results.store.folder(results.plan.recipes[0]).made_in() or environment()
    return {name: value for name, value in made.items() if value != []}


def _costs(results: Results) -> tuple[tuple[str, float], ...]:
    spent: dict[str, list[float]] = {}
    for run, recipe in {run_id(recipe): recipe for recipe in results.plan.recipes}.items():
        spent.setdefault(recipe.kind, []).append(results.store.folder(run).seconds()[1])
    return tuple(
        (f"{kind}: {len(each)} runs, CPU seconds of all", round(sum(each), 1)) for kind, each in sorted(spent.items())
    )


def price(plan: StudyPlan, root: Path) -> list[dict[str, Any]]:
    """What a study costs before it runs, by kind of step, and how much of it is done."""
    store = Store(root)
    rows: dict[str, dict[str, Any]] = {}
    for run, recipe in {run_id(recipe): recipe for recipe in plan.recipes}.items():
        found = cost(recipe)
        row = rows.setdefault(
            recipe.kind, {"kind": recipe.kind, "runs": 0, "done": 0, "steps": 0, "images": 0, "flops": 0.0}
        )
        row["runs"] += 1
        row["done"] += store.folder(run).done
        for name in ("steps", "images", "flops"):
            row[name] += getattr(found, name)
    return list(rows.values())

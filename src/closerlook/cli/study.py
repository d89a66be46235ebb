"""``closerlook study``: a study, or all of them, from recipes to verdict and report."""

import os
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from closerlook.cli.answer import answer
from closerlook.cli.names import known, seed_list
from closerlook.cli.options import DryRun, Json, Positive, Runs
from closerlook.cli.prices import price_of, price_of_all, text, text_of_all
from closerlook.data import SOURCES
from closerlook.data.lookup import VARIABLE
from closerlook.errors import StepFailedError, UsageError
from closerlook.launch import Progress
from closerlook.models import is_target
from closerlook.runs.identity import run_id
from closerlook.steps.setting import network, parts
from closerlook.studies import STUDIES
from closerlook.studies.plan import Scale, StudyPlan
from closerlook.studies.run import run_study
from closerlook.studies.together import ALL, Whole, plan_all, run_all

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_OWN = "(default: the scale's)"


def study(
    name: Annotated[Positional[str], arg(metavar="NAME", help_behavior_hint="")],
    scale: Scale = "small",
    data: Annotated[str | None, arg(metavar="NAME|MODULE:FUNCTION", help_behavior_hint=_OWN)] = None,
    data_dir: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None,
    seeds: Annotated[str | None, arg(metavar="100-102", help_behavior_hint=_OWN)] = None,
    jobs: Annotated[Positive, arg(help_behavior_hint=f"(default: {CORES}, the cores here)")] = CORES,
    runs: Runs = Path("runs"),
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Run a study, or all at once: train its arms, measure, judge by its rule, write a report that stands on its own.

    Runs are named by their recipes: finished ones are reused, and a command that was stopped goes on when it is started
    again. The verdict is printed; verdict.json, table.csv, figures and report.html lie in runs/study-...

    Parameters
    ----------
    name
        Which study (closerlook ls studies), or all: one launch for all studies, and one report of them besides.
    scale
        How large: every step, but tiny (smoke); minutes and a provisional verdict (small); all controls and at least
        five seeds (standard); the paper's network and data, for large machines (paper), or with the settings of its
        authors' public code where they differ (author-code).
    data
        Other data than the scale's.
    data_dir
        Folder with the files of the data set.
    seeds
        Seeds, such as 100-102 or 100,105; verdicts are for seeds from 100 on.
    jobs
        Steps that run at a time, each on one core.

    Examples
    --------
    closerlook study restarts --scale smoke
    closerlook study all --scale small --jobs 2
    closerlook study restarts --scale standard --seeds 100-107 --dry-run
    """
    if data_dir is not None:
        if not data_dir.is_dir():
            raise UsageError(f"--data-dir: there is no folder {data_dir}")
        os.environ[VARIABLE] = str(data_dir.absolute())  # the workers look there too
    if data is not None and not is_target(data):
        known("built-in data", data, SOURCES)
    chosen = seed_list(seeds)
    if known("study", name, [*STUDIES, ALL]) == ALL:
        return _all(plan_all(scale, chosen, data), runs, jobs, dry_run, json)
    plan = STUDIES[name].plan(scale, seeds=chosen, data=data)
    if dry_run:
        found = price_of(plan, runs, jobs)
        answer(found, text(found, plan), json)
        return 0
    _try(plan)
    progress = Progress(len({run_id(recipe) for recipe in plan.recipes}))
    try:
        outcome = run_study(plan, runs, jobs, progress)
    finally:
        progress.close()
    result = {"verdict": outcome.verdict.to_dict(), "report": outcome.report, "folder": outcome.folder}
    answer(result, f"{outcome.verdict}\n\nreport: {outcome.report}", json)
    return 0


def _try(plan: StudyPlan) -> None:
    """Data and network here rather than in every worker: they may have to be fetched, and may not fit."""
    first = plan.recipes[0]
    parts(first.data)
    network(first.model, first.data, seed=0)


def _all(whole: Whole, runs: Path, jobs: int, dry_run: bool, json: bool) -> int:
    if dry_run:
        found = price_of_all(whole, runs, jobs)
        answer(found, text_of_all(found), json)
        return 0
    for plan in whole.plans:
        _try(plan)
    progress = Progress(len(whole.recipes))
    try:
        outcome = run_all(whole, runs, jobs, progress)
    finally:
        progress.close()
    verdicts = {name: study.verdict for name, study in outcome.studies.items()}
    told = [f"{name}: {verdict.words}\n{outcome.studies[name].report}" for name, verdict in verdicts.items()]
    result = {
        "verdicts": {name: verdict.to_dict() for name, verdict in verdicts.items()}, "missing": outcome.missing,
        "reports": {name: study.report for name, study in outcome.studies.items()},
        "report": outcome.report, "folder": outcome.folder,
    }  # fmt: skip
    answer(result, "\n\n".join([*told, f"report: {outcome.report}"]), json)
    if outcome.missing:
        lines = [f"no verdict of {name}: {why}" for name, why in outcome.missing.items()]
        raise StepFailedError("\n".join([*lines, *outcome.failures]))
    return 0

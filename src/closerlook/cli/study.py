"""``closerlook study``: a whole study, from its recipes to verdict and report."""

import os
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from closerlook.cli.answer import answer
from closerlook.cli.names import known, seed_list
from closerlook.cli.options import DryRun, Json, Positive, Runs
from closerlook.cli.prices import price_of, text
from closerlook.data import SOURCES
from closerlook.data.lookup import VARIABLE
from closerlook.errors import UsageError
from closerlook.launch import Progress
from closerlook.models import is_target
from closerlook.runs.identity import run_id
from closerlook.steps.setting import network, parts
from closerlook.studies import STUDIES
from closerlook.studies.plan import Scale
from closerlook.studies.run import run_study

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
    """Run a study: train its arms, measure, judge by its rule, and write a report that stands on its own.

    Runs are named by their recipes: finished ones are reused, and a command that was stopped goes on when it is started
    again. The verdict is printed; verdict.json, table.csv, figures and report.html lie in runs/study-...

    Parameters
    ----------
    name
        Which study; closerlook ls studies.
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
    closerlook study restarts --scale small --jobs 2
    closerlook study restarts --scale standard --seeds 100-107 --dry-run
    """
    if data_dir is not None:
        if not data_dir.is_dir():
            raise UsageError(f"--data-dir: there is no folder {data_dir}")
        os.environ[VARIABLE] = str(data_dir.absolute())  # the workers look there too
    if data is not None and not is_target(data):
        known("built-in data", data, SOURCES)
    plan = STUDIES[known("study", name, STUDIES)].plan(scale, seeds=seed_list(seeds), data=data)
    if dry_run:
        found = price_of(plan, runs, jobs)
        answer(found, text(found, plan), json)
        return 0
    first = plan.recipes[0]
    parts(first.data)  # here rather than in every worker: it may have to be fetched, and may not fit
    network(first.model, first.data, seed=0)
    progress = Progress(len({run_id(recipe) for recipe in plan.recipes}))
    try:
        outcome = run_study(plan, runs, jobs, progress)
    finally:
        progress.close()
    result = {"verdict": outcome.verdict.to_dict(), "report": outcome.report, "folder": outcome.folder}
    answer(result, f"{outcome.verdict}\n\nreport: {outcome.report}", json)
    return 0

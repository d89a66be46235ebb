"""``closerlook report``: an HTML report of runs, or that of a study again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from closerlook import files
from closerlook import report as html
from closerlook.cli.answer import answer, shown
from closerlook.cli.drawn import figures_of
from closerlook.cli.names import known
from closerlook.cli.options import Json, Runs
from closerlook.cli.stored import find
from closerlook.cli.summary import summary
from closerlook.errors import StoreError, UsageError
from closerlook.runs.store import RunFolder, Store
from closerlook.studies import STUDIES
from closerlook.studies.run import conclude, study_folder


def report(
    names: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN ...", help_behavior_hint="")],
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE.html")] = Path("report.html"),
    runs: Runs = Path("runs"),
    json: Json = False,
) -> int:
    """Write one self-contained HTML file with the figures and numbers of runs; or write a study's report again.

    Parameters
    ----------
    names
        Runs, each by its name, the beginning of it or its folder; or one study's folder.
    out
        The file; a study's report stays in the study's folder.

    Examples
    --------
    closerlook report train-1a2b3c4d profile-5e6f7a8b -o report.html
    closerlook report runs/study-restarts-small-1a2b3c4d
    """
    if not names:
        raise UsageError("which runs? closerlook runs ls names them")
    studies = [Path(name) for name in names if name and (Path(name) / "plan.json").exists()]
    if studies and len(names) > 1:
        raise UsageError(f"{studies[0]} is a study: its report stands alone; name it alone")
    written = again(studies[0]) if studies else html.write(page([found(name, Store(runs)) for name in names]), out)
    answer({"report": written}, str(written), json)
    return 0


def found(name: str, store: Store) -> RunFolder:
    """A run by its folder or its name."""
    folder = RunFolder(Path(name).absolute())
    return folder if name and (folder.path / "recipe.json").exists() else find(name, store)


def page(folders: Sequence[RunFolder]) -> html.Report:
    """The report of some runs."""
    told = [summary(folder) for folder in folders]
    environments = [folder.made_in() or {} for folder in folders if folder.done]
    return html.Report(
        title=", ".join(folder.id for folder in folders[:3]) + (" and others" if len(folders) > 3 else ""),
        question="What these runs came to; nothing is judged here.",
        figures=tuple(figure for folder in folders for figure in figures_of(folder)),
        tables=tuple(table(each) for each in told),
        environment=environments[0] if environments else {},
        costs=tuple((each["run"], each["cpu_seconds"]) for each in told),
        command=f"closerlook report {' '.join(folder.id for folder in folders)}",
    )


def table(told: Mapping[str, Any]) -> html.Table:
    """A run's results, a row per number."""
    left_out = ("run", "folder", "seconds", "cpu_seconds", "checkpoints", "labels", "values")
    rows = tuple((name, shown(value)) for name, value in told.items() if name not in left_out)
    return html.Table(f"{told['run']}-results", told["run"], ("what", "value"), rows)


def again(folder: Path) -> Path:
    """The report of a study, written again from its stored numbers."""
    plan = files.read_json(folder / "plan.json")
    try:
        name = known("study", plan["study"], STUDIES)
        study = STUDIES[name].plan(plan["scale"], tuple(plan["seeds"]), plan.get("data"))
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder / 'plan.json'} is damaged; closerlook study makes it anew") from error
    if study_folder(study, folder.parent).name != folder.name:
        raise StoreError(
            f"{folder} was made by another version of the study; closerlook study {plan['study']} makes it anew"
        )
    return conclude(study, folder.parent).report

"""``closerlook report``: an HTML report of runs, that of a study again, or several studies side by side."""

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
from closerlook.studies.side_by_side import side_by_side
from closerlook.studies.together import ALL, Whole, conclude_all, plan_all


def report(
    names: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN ...", help_behavior_hint="")],
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE.html")] = Path("report.html"),
    runs: Runs = Path("runs"),
    json: Json = False,
) -> int:
    """Write one self-contained HTML file: numbers and figures of runs, a study's report again, or studies side by side.

    One study on other data, with another network or on another machine is another set-up. Of several set-ups the
    report shows every part beside one another, what differs in their settings, and whether one verdict holds across
    them; folders of all studies are compared study by study. Stored verdicts are compared: the runs need not be there.

    Parameters
    ----------
    names
        Runs, each by its name, the beginning of it or its folder; or folders of studies.
    out
        The file; the report of one study stays in the study's folder.

    Examples
    --------
    closerlook report train-1a2b3c4d profile-5e6f7a8b -o report.html
    closerlook report runs/study-restarts-small-1a2b3c4d
    closerlook report here/study-all-small-5e6f7a8b there/study-all-small-9c0d1e2f -o comparison.html
    """
    if not names:
        raise UsageError("which runs? closerlook runs ls names them")
    studies = [Path(name) for name in names if name and (Path(name) / "plan.json").exists()]
    if studies and len(studies) < len(names):
        raise UsageError(f"{studies[0]} is a study: it is compared with studies, not with runs; name these alone")
    if len(studies) > 1:
        written = side_by_side(studies, out)
    else:
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
    """The report of a study, or of all, written again from the stored numbers."""
    plan = files.read_json(folder / "plan.json")
    try:
        name, seeds = known("study", plan["study"], [*STUDIES, ALL]), plan["seeds"]
        asked = (plan["scale"], None if seeds is None and name == ALL else tuple(seeds), plan.get("data"))
        made = plan_all(*asked) if name == ALL else STUDIES[name].plan(*asked)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder / 'plan.json'} is damaged; closerlook study makes it anew") from error
    place = made.folder(folder.parent) if isinstance(made, Whole) else study_folder(made, folder.parent)
    if place.name != folder.name:
        raise StoreError(f"{folder} was made by another version of the study; closerlook study {name} makes it anew")
    return conclude_all(made, folder.parent).report if isinstance(made, Whole) else conclude(made, folder.parent).report

"""``closerlook curve``: losses along a curve that the reference code trained, or what it read along one itself."""

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from closerlook import files
from closerlook.cli import profiles
from closerlook.cli.answer import answer
from closerlook.cli.options import DryRun, Jobs, Json, Level, Metric, Out, Tolerance, at_least
from closerlook.cli.outputs import folder_for, write
from closerlook.cli.settings import Reading
from closerlook.cli.subject import Subject
from closerlook.cli.work import dry, finish
from closerlook.errors import UsageError
from closerlook.landscape import Profile, load_curve, read_curve_npz
from closerlook.landscape.heights import Definition
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import Control, ProfileRecipe
from closerlook.runs.store import Store
from closerlook.steps.setting import network

_UNKNOWN = """\
The file does not tell how many images were read, nor their spread (so there are no intervals), nor the kind of curve.
The reference code reads training images with random crops and flips, and takes the statistics from the same ones."""


def curve(
    file: Annotated[Positional[Path], arg(metavar="FILE", help_behavior_hint="")],
    subject: Subject,
    reading: Reading,
    positions: Annotated[int, at_least(3), arg(name="points")] = 61,
    metric: Metric = "loss",
    definition: Definition = "above_ends",
    tolerance: Tolerance = None,
    level: Level = 0.95,
    jobs: Jobs = 1,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Read losses along a curve of the reference code of mode connectivity, or show what that code read.

    FILE is a checkpoint of a curve (checkpoint-N.pt of its train.py --curve), which is read on your network and data,
    or a curve.npz (of its eval_curve.py), which needs neither. The code is that of Garipov et al. 2018
    (github.com/timgaripov/dnn-mode-connectivity); nothing in a file can run code. Writes curve.json, curve.csv,
    curve.svg and curve.png. The same command again reuses what is finished.

    Parameters
    ----------
    file
        A checkpoint of a curve, or a curve.npz.
    positions
        Equispaced positions t, both ends included.
    metric
        What is drawn and printed; the files hold all three.
    definition
        What a barrier's height is measured from: the worse end, the mean of both, or the line between them.

    Examples
    --------
    closerlook curve curve.npz
    closerlook curve checkpoint-200.pt --model mymodule:network --data mymodule:data --batch-stats reference
    """
    _check(file, subject, reading != Reading() or tolerance is not None or positions != 61)
    store = Store(subject.runs)
    recipes = [] if file.suffix == ".npz" else [_recipe(file, subject, reading, positions, tolerance, level)]
    if dry_run:
        return dry(recipes, store, json)
    finish(recipes, store, jobs)
    result = _read(recipes[0], store) if recipes else _recorded(file)
    found = Profile.from_dict(result["curve"])
    result["barriers"] = profiles.barriers("curve", found, definition, level)
    folder = folder_for("curve", result["source"], subject.runs, out)
    paths = write(folder, "curve", result, found.to_frame(), {"": profiles.drawing({"curve": found}, metric)})
    text = [
        profiles.table(result["barriers"], metric, recipes[0].data.n_statistics if recipes else 0),
        f"{found.kind.capitalize()}: {result['curve']['length']:.4g} long in distance of weights.",
        *(profiles.work({"curve": found}) if recipes else [_UNKNOWN]),
        *map(str, paths),
    ]
    answer({**result, "files": paths}, "\n".join(text), json)
    return 0


def _check(file: Path, subject: Subject, settings: bool) -> None:
    """Refuse settings of a reading where there is none."""
    if file.suffix == ".npz" and (settings or subject.model or subject.data):
        raise UsageError(
            f"{file} is read already: leave out --model, --data, --points, --tolerance and how losses are read, or "
            "give the checkpoint of the curve"
        )


def _recipe(
    file: Path, subject: Subject, reading: Reading, t: int, tolerance: float | None, level: float
) -> ProfileRecipe:
    """The reading of a checkpoint, whose points fit the network and each other."""
    specs = subject.specs((file,))
    held = load_curve(file, network(specs["model"], specs["data"], seed=0))
    place = {"path": str(file.resolve()), "sha256": files.sha256(file)}
    points = tuple(Control(**place, index=index) for index in range(len(held.points)))
    return ProfileRecipe(
        **reading.of(specs), curve=held.kind, points=points, t=t, tolerance=tolerance, level=level
    )  # fmt: skip


def _read(recipe: ProfileRecipe, store: Store) -> dict[str, Any]:
    stored = store.folder(recipe).result("profile")
    return {"source": {"curve": run_id(recipe)}, "curve": stored}


def _recorded(file: Path) -> dict[str, Any]:
    found = read_curve_npz(file)
    return {
        "source": {"curve.npz": files.sha256(file)},
        "curve": {**found.to_dict(), "length": float(found.steps.sum())},
    }

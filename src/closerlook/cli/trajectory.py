"""``closerlook trajectory``: how a series of checkpoints moves, and the losses on the plane in which it moves most."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from tyro.conf import Positional, arg

from closerlook.cli.answer import answer, columns
from closerlook.cli.options import Coarse, DryRun, Grid, Interactive, Jobs, Json, Metric, Out, Real
from closerlook.cli.outputs import folder_for, write, write_pages
from closerlook.cli.points import labels, references, weights
from closerlook.cli.profiles import policy, splits_of
from closerlook.cli.settings import Reading
from closerlook.cli.subject import Subject
from closerlook.cli.surfaces import check_grid, ranges, short
from closerlook.cli.work import dry, finish
from closerlook.errors import UsageError
from closerlook.landscape import Surface
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import TrajectoryRecipe
from closerlook.runs.store import Store

_COLUMNS = {
    "checkpoint": "checkpoint", "from_first": "from first", "from_last": "from last", "step_length": "step length",
    "turn": "cosine to next", "x": "x", "y": "y", "off_plane": "off the plane",
}  # fmt: skip


def trajectory(
    checkpoints: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN | A B C ...", help_behavior_hint="")],
    subject: Subject,
    reading: Reading,
    grid: Grid = (21, 21),
    margin: Real = 0.2,
    metric: Metric = "loss",
    tolerance: Coarse = None,
    interactive: Interactive = False,
    jobs: Jobs = 1,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Follow a series of checkpoints, and read losses on the plane of its first two principal components.

    Per checkpoint: distances from the first and the last, length of the step to it, cosine between that step and the
    next, coordinates on the plane through the last one, distance off the plane; all in L2 of weights. Writes
    trajectory.json, trajectory.csv (the checkpoints), trajectory.svg and trajectory.png. The same command again reuses
    what is finished.

    Parameters
    ----------
    checkpoints
        A training's run (its folder, or its name among the runs), whose snapshots are taken in their order; or three
        and more checkpoints in their order, each once; the last one is the origin of the plane.
    margin
        Added on each side, as a share of the box around the checkpoints.
    metric
        What is drawn; the files hold all three.

    Examples
    --------
    closerlook trajectory runs/train-0123abcd --splits train --tolerance 0.05
    closerlook trajectory e1.pt e2.pt e3.pt e4.pt --model mymodule:network --data mymodule:data --interactive
    """
    check_grid(grid, interactive)
    names, paths = series(checkpoints, subject.runs)
    specs, store = subject.specs(paths), Store(subject.runs)
    weights(paths, specs)
    settings = {**reading.of(specs), "grid": grid, "tolerance": tolerance, "margin": margin}
    recipe = TrajectoryRecipe(**settings, names=tuple(names), points=tuple(references(paths)))
    if dry_run:
        return dry([recipe], store, json)
    finish([recipe], store, jobs)
    result = {"runs": {"trajectory": run_id(recipe)}, **store.folder(recipe).result("surface")}
    found = Surface.from_dict(result)
    rows = {name: result["trajectory"][name] for name in _COLUMNS}
    drawn = short(found)
    drawings = {split: drawn.plot(split=split, metric=metric) for split in splits_of(found)}
    folder = folder_for("trajectory", result["runs"], subject.runs, out)
    written = write(folder, "trajectory", result, pd.DataFrame(rows), drawings)
    written += write_pages(folder, "trajectory", drawn, splits_of(found) if interactive else (), metric)
    lines = [
        text(rows, result["trajectory"]["explained"]),
        "",
        ranges(found, metric),
        policy(found.batch_stats, specs["data"].n_statistics),
    ]
    answer({**result, "files": written}, "\n".join([*lines, *map(str, written)]), json)
    return 0


def series(given: Sequence[Path], runs: Path) -> tuple[list[str], list[Path]]:
    """Names and files of the checkpoints: those that were named, or the snapshots of a run."""
    if len(given) > 2:
        return labels(given), list(given)
    told = " and ".join(map(str, given)) or "nothing"
    folders = [place for place in (given[0], runs / given[0]) if place.is_dir()] if len(given) == 1 else []
    if not folders:
        raise UsageError(f"a trajectory takes a training's run, or at least three checkpoints, not {told}")
    snapshots = sorted((folders[0] / "checkpoints").glob("step-*.safetensors"))
    if len(snapshots) < 3:
        raise UsageError(f"{told} keeps {len(snapshots)} snapshots, a trajectory needs three: train with more of them")
    return [f"step {int(path.stem.removeprefix('step-'))}" for path in snapshots], snapshots


def text(rows: Mapping[str, Any], explained: Sequence[float]) -> str:
    """One row per checkpoint, and how much the plane holds."""
    table = columns(list(_COLUMNS.values()), list(zip(*rows.values(), strict=True)))
    shares = " and ".join(f"{share:.1%}" for share in explained[:2])
    return (
        f"{table}\n\nThe plane's axes hold {shares} of the variance; it goes through the last checkpoint.\n"
        "A random walk has a smooth arc here and a high first share too: neither tells of the loss."
    )

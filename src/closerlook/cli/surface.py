"""``closerlook surface``: losses on the plane through three checkpoints."""

from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated

from tyro.conf import arg

from closerlook.cli.answer import answer, columns
from closerlook.cli.options import Above, DryRun, First, Jobs, Json, Metric, Out, Real, Second, Third
from closerlook.cli.outputs import folder_for, write
from closerlook.cli.points import labels, references, weights
from closerlook.cli.profiles import policy, splits_of
from closerlook.cli.settings import Reading
from closerlook.cli.subject import Subject
from closerlook.cli.work import dry, finish
from closerlook.errors import UsageError
from closerlook.landscape import Surface, plane
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import SurfaceRecipe
from closerlook.runs.store import Store

_LONGEST = 12  # letters of a name beside a mark


def surface(
    a: First,
    b: Second,
    c: Third,
    subject: Subject,
    reading: Reading,
    mark: Annotated[tuple[Path, ...], arg(metavar="CHECKPOINT ...", help_behavior_hint="")] = (),
    grid: Annotated[tuple[int, int], arg(metavar="COLUMNS ROWS")] = (21, 21),
    margin: Real = 0.2,
    metric: Metric = "loss",
    tolerance: Annotated[Above | None, arg(metavar="SHARE", help_behavior_hint="(default: read every cell)")] = None,
    jobs: Jobs = 1,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Read losses on a grid over the plane through the checkpoints A, B and C.

    The first axis runs from A to C, the second is the rest of the way to B, both in distance of weights (L2). Other
    checkpoints can be marked: each is projected on the plane and named with its distance off it. Writes surface.json,
    surface.csv, surface.svg and surface.png. The same command again reuses what is finished.

    Parameters
    ----------
    a
        The origin of the plane.
    b
        The second axis points to its side.
    c
        It lies on the first axis.
    mark
        More checkpoints to show on the plane.
    grid
        Number of columns and of rows.
    margin
        Added on each side, as a share of the box around all that is marked.
    metric
        What is drawn; the files hold all three.
    tolerance
        Read coarse to fine, and finer only where the surface is bent; elsewhere losses are interpolated to about this
        share of their value, such as 0.05.

    Examples
    --------
    closerlook surface a.pt b.pt c.pt --model mymodule:network --data mymodule:data --splits train
    closerlook surface a.pt b.pt c.pt --model mymodule:network --data mymodule:data --mark d.pt e.pt --grid 31 31
    """
    if min(grid) < 2:
        raise UsageError(f"a grid has at least two columns and two rows, not {grid[0]} and {grid[1]}")
    checkpoints = (a, b, c, *mark)
    specs, store, names = subject.specs(checkpoints), Store(subject.runs), labels(checkpoints)
    plane(*weights(checkpoints, specs)[:3])
    first, second, third, *others = references(checkpoints)
    marks = dict(zip(names[3:], others, strict=True))
    recipe = SurfaceRecipe(
        **reading.of(specs), points=(first, second, third), marks=marks, grid=grid, margin=margin,
        tolerance=tolerance,
    )  # fmt: skip
    if dry_run:
        return dry([recipe], store, json)
    finish([recipe], store, jobs)
    result = {"runs": {"surface": run_id(recipe)}, **store.folder(recipe).result("surface")}
    known = {f"w_{index}": name for index, name in enumerate(names[:3])}
    result["marks"] = {known.get(name, name): mark for name, mark in result["marks"].items()}
    found = Surface.from_dict(result)
    drawings = {split: lettered(found).plot(split=split, metric=metric) for split in splits_of(found)}
    folder = folder_for("surface", result["runs"], subject.runs, out)
    paths = write(folder, "surface", result, found.to_frame(), drawings)
    lines = [text(found, metric), policy(found.batch_stats, specs["data"].n_statistics), *map(str, paths)]
    answer({**result, "files": paths}, "\n".join(lines), json)
    return 0


def lettered(surface: Surface) -> Surface:
    """The surface with its marks called A, B, C, ... where their names are too long for a figure."""
    if max(map(len, surface.marks)) <= _LONGEST:
        return surface
    return replace(surface, marks=dict(zip(ascii_uppercase, surface.marks.values(), strict=False)))


def text(surface: Surface, metric: str) -> str:
    """The range of a metric, and where the checkpoints lie."""
    read = [(split, surface.n[split], surface.values[f"{split}_{metric}"]) for split in splits_of(surface)]
    ranges = [(split, n, float(values.min()), float(values.max())) for split, n, values in read]
    marks = [
        (letter, name, *(round(x, 4) for x in (mark.x, mark.y, mark.distance)))
        for letter, (name, mark) in zip(ascii_uppercase, surface.marks.items(), strict=False)
    ]
    read_on = columns(("read on", "images", f"lowest {metric}", "highest"), ranges)
    lie_at = columns(("", "checkpoint", "x", "y", "distance off the plane"), marks)
    read_cells = f"{int(surface.was_read.sum())} of {surface.was_read.size} cells read"
    grid = f"{len(surface.x)} x {len(surface.y)} grid, {read_cells}, weights {surface.dtype}"
    return f"{read_on}\n\n{lie_at}\n\nDistances are L2 norms of weights; {grid}."

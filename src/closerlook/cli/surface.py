"""``closerlook surface``: losses on the plane through three checkpoints, or along two directions from one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from closerlook.cli.answer import answer
from closerlook.cli.options import (
    Above,
    Coarse,
    DryRun,
    First,
    Grid,
    Interactive,
    Jobs,
    Json,
    Metric,
    Out,
    Real,
    Whole,
)
from closerlook.cli.outputs import folder_for, write, write_pages
from closerlook.cli.points import labels, references, weights
from closerlook.cli.profiles import policy, splits_of
from closerlook.cli.settings import Reading
from closerlook.cli.subject import Subject
from closerlook.cli.surfaces import check_grid, lettered, text
from closerlook.cli.work import dry, finish
from closerlook.errors import UsageError
from closerlook.landscape import Surface, plane
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import DirectionsRecipe, PointRef, SurfaceRecipe
from closerlook.runs.store import Store


@dataclass(frozen=True)
class Around:
    """A plane around A alone; B and C are left out then.

    Attributes
    ----------
    directions
        Two random directions, scaled to the weights filter by filter (Li et al. 2018, arXiv 1712.09913) or tensor by
        tensor, or the two sharpest: eigenvectors of the Hessian.
    direction_seed
        Draws the directions, or the start of the search for the sharpest. The images that are read stay the same.
    radius
        How far the grid goes to either side of A on both axes: in multiples of a random direction, or in distance of
        weights (L2) along an eigenvector.
    """

    directions: Annotated[Literal["random", "random-layer", "hessian"] | None, arg(help_behavior_hint="")] = None
    direction_seed: Whole = 0
    radius: Above = 1.0


def surface(
    a: First,
    others: Annotated[Positional[tuple[Path, ...]], arg(metavar="[B C]", help_behavior_hint="")],
    subject: Subject,
    reading: Reading,
    around: Around,
    mark: Annotated[tuple[Path, ...], arg(metavar="CHECKPOINT ...", help_behavior_hint="")] = (),
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
    """Read losses on a grid over the plane through the checkpoints A, B and C, or along two directions from A.

    The first axis runs from A to C, the second is the rest of the way to B, both in distance of weights (L2). With
    --directions the plane is that around A alone. Other checkpoints can be marked: each is projected on the plane and
    named with its distance off it. Writes surface.json, surface.csv, surface.svg and surface.png. The same command
    again reuses what is finished.

    Parameters
    ----------
    a
        The origin of the plane.
    others
        The second axis points to the side of B; C lies on the first axis.
    mark
        More checkpoints to show on the plane.
    margin
        Of three checkpoints: added on each side, as a share of the box around all that is marked.
    metric
        What is drawn; the files hold all three.

    Examples
    --------
    closerlook surface a.pt b.pt c.pt --model mymodule:network --data mymodule:data --splits train
    closerlook surface a.pt b.pt c.pt --model mymodule:network --data mymodule:data --mark d.pt e.pt --grid 31 31
    closerlook surface a.pt --directions random --radius 0.5 --model mymodule:network --data mymodule:data
    """
    check_grid(grid, interactive)
    _check(others, around)
    checkpoints = (a, *others, *mark)
    specs, store, names = subject.specs(checkpoints), Store(subject.runs), labels(checkpoints)
    points = weights(checkpoints, specs) if len(checkpoints) > 1 else ()
    if others:
        plane(*points[:3])
    settings = {**reading.of(specs), "grid": grid, "tolerance": tolerance}
    recipe = _recipe(names, references(checkpoints), settings, margin, around)
    if dry_run:
        return dry([recipe], store, json)
    finish([recipe], store, jobs)
    result = {"runs": {"surface": run_id(recipe)}, **store.folder(recipe).result("surface")}
    known = {f"w_{index}": name for index, name in enumerate(names[: 1 + len(others)])}
    result["marks"] = {known.get(name, name): mark for name, mark in result["marks"].items()}
    found = Surface.from_dict(result)
    drawings = {split: lettered(found).plot(split=split, metric=metric) for split in splits_of(found)}
    folder = folder_for("surface", result["runs"], subject.runs, out)
    paths = write(folder, "surface", result, found.to_frame(), drawings)
    paths += write_pages(folder, "surface", lettered(found), splits_of(found) if interactive else (), metric)
    lines = [text(found, metric), policy(found.batch_stats, specs["data"].n_statistics), *map(str, paths)]
    answer({**result, "files": paths}, "\n".join(lines), json)
    return 0


def _check(others: Sequence[Path], around: Around) -> None:
    if around.directions is None and len(others) != 2:
        given = f"{1 + len(others)} checkpoint{'s' if others else ''}"
        raise UsageError(f"a plane goes through three checkpoints, not {given}; around one take --directions random")
    if around.directions is None and around != Around():
        raise UsageError("--radius and --direction-seed say nothing without --directions")
    if around.directions is not None and others:
        raise UsageError("--directions makes a plane around A alone: leave B and C out, or show them with --mark")


def _recipe(
    names: Sequence[str], points: Sequence[PointRef], settings: Mapping[str, Any], margin: float, around: Around
) -> SurfaceRecipe | DirectionsRecipe:
    if around.directions is not None:
        marks = dict(zip(names[1:], points[1:], strict=True))
        told = {"directions": around.directions, "seed": around.direction_seed, "radius": around.radius}
        return DirectionsRecipe(**settings, **told, point=points[0], marks=marks)
    first, second, third, *others = points
    marks = dict(zip(names[3:], others, strict=True))
    return SurfaceRecipe(**settings, points=(first, second, third), marks=marks, margin=margin)

"""Steps that read: `profile`, `surface`, `barriers`, `predict`; in fp32 unless the recipe names another precision."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from closerlook import files
from closerlook.alignment import repaired
from closerlook.batches import autocast_dtype, feed_for
from closerlook.errors import StoreError
from closerlook.evaluation import estimate_batch_stats, evaluate
from closerlook.landscape import Profile, Subspace, Surface, barrier_matrix, plane, polychain, profile, surface
from closerlook.landscape.cells import clear
from closerlook.runs.recipe import BarriersRecipe, PredictRecipe, ProfileRecipe, Reading, SurfaceRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.align import batches_to_align_on
from closerlook.steps.points import Resolver, overflow_is_missing
from closerlook.steps.registry import CELLS, helper, step
from closerlook.steps.setting import (
    MEMORY_FORMATS,
    fixed_batches,
    network,
    parts,
    reading_batches,
    statistics_batches,
)


@step("profile")
def read_profile(recipe: ProfileRecipe, folder: RunFolder) -> None:
    """Metrics along a segment or a trained curve."""

    def made() -> dict[str, Any]:
        found, length = profile_in_cells(recipe, folder)
        return {**found.to_dict(), "length": length}

    from_cells(folder, "profile", made)


@step("surface")
def read_surface(recipe: SurfaceRecipe, folder: RunFolder) -> None:
    """Metrics on a plane, with other points projected on it."""
    from_cells(folder, "surface", lambda: surface_in_cells(recipe, folder).to_dict())


@helper("profile")
def profile_in_cells(recipe: ProfileRecipe, folder: RunFolder) -> tuple[Profile, float]:
    """The profile, its points kept as cells of the folder, and the length of its path."""
    find, settings = reading(recipe, folder)
    curve = _curve(recipe, find)
    found = profile(
        find.model, curve, reading_batches(recipe), recipe.t, tolerance=recipe.tolerance, level=recipe.level,
        out=folder.path / CELLS, **settings,
    )  # fmt: skip
    return found, curve.length()


def _curve(recipe: ProfileRecipe, find: Resolver) -> Subspace:
    """The curve through the recipe's points; one with REPAIR is the chain of all that are read."""
    points = tuple(find.point(ref) for ref in recipe.points)
    if not recipe.repair:
        return Subspace(recipe.curve, points)
    images = batches_to_align_on(recipe.data, recipe.batch_size)
    with overflow_is_missing(*recipe.points):
        coords = np.linspace(0, 1, recipe.t).tolist()
        return polychain(list(repaired(find.model, points[0], points[1], coords, images)))


@helper("surface")
def surface_in_cells(recipe: SurfaceRecipe, folder: RunFolder) -> Surface:
    """The surface, its cells kept in the folder."""
    find, settings = reading(recipe, folder)
    first, second, third = (find.point(ref) for ref in recipe.points)
    return surface(
        find.model, plane(first, second, third), reading_batches(recipe), grid=recipe.grid, margin=recipe.margin,
        mark={name: find.point(ref) for name, ref in recipe.marks.items()}, tolerance=recipe.tolerance,
        out=folder.path / CELLS, **settings,
    )  # fmt: skip


def reading(recipe: Reading, folder: RunFolder) -> tuple[Resolver, dict[str, Any]]:
    """Where points are found, and what every reading is called with."""
    model = network(recipe.model, recipe.data, seed=0)
    return Resolver(model, folder), {
        "batch_stats": recipe.batch_stats, "stats_loader": statistics_batches(recipe, model),
        "autocast": autocast_dtype(recipe.precision), "memory_format": MEMORY_FORMATS[recipe.memory_format],
    }  # fmt: skip


def from_cells(folder: RunFolder, name: str, made: Callable[[], dict[str, Any]]) -> None:
    """Write a result unless it is there. Its cells go afterwards: it holds all that they hold."""
    path = folder.path / "results" / f"{name}.json"
    try:
        files.read_json(path)
    except StoreError:
        files.write_json(path, made())
    clear(folder.path / CELLS)


@step("barriers")
def read_barriers(recipe: BarriersRecipe, folder: RunFolder) -> None:
    """Barriers between all pairs, on the first split; and the distances between the points."""
    find, settings = reading(recipe, folder)
    loader = reading_batches(recipe)[recipe.splits[0]]
    points = {label: find.point(ref) for label, ref in recipe.points.items()}
    found = barrier_matrix(find.model, list(points.values()), loader, labels=list(points), points=recipe.t, **settings)
    vectors = [point.vector.double() for point in points.values()]
    distances = [[float(torch.linalg.vector_norm(a - b)) for b in vectors] for a in vectors]
    files.write_json(folder.path / "results" / "barriers.json", {**found.to_dict(), "distances": distances})


@step("predict")
def predict(recipe: PredictRecipe, folder: RunFolder) -> None:
    """Logits on the whole test set: of snapshots with their own statistics, of averages with new ones."""
    model = network(recipe.model, recipe.data, seed=0)
    find = Resolver(model, folder)
    held = parts(recipe.data)
    test = fixed_batches(held.test, recipe.batch_size)
    arrays = {"targets": held.test.targets.numpy()}
    for label, ref in recipe.points.items():
        point = find.point(ref)
        model.load_state_dict(find.space.state_dict(point), strict=False)
        statistics = None if point.buffers else statistics_batches(recipe, model)
        if statistics is not None:
            estimate_batch_stats(model, statistics, feed_for(model)[1])
        outputs = evaluate(model, test, outputs=True).outputs
        assert outputs is not None
        arrays[label] = outputs.numpy().astype(np.float32)
    files.write_arrays(folder.path / "results" / "logits.npz", arrays)

"""Steps that read: `profile`, `surface`, `barriers`, `predict`. Judged numbers are read in fp32."""

import numpy as np
import torch

from closerlook import files
from closerlook.batches import feed_for
from closerlook.evaluation import estimate_batch_stats, evaluate
from closerlook.landscape import Subspace, barrier_matrix, plane, profile, surface
from closerlook.runs.recipe import BarriersRecipe, PredictRecipe, ProfileRecipe, SurfaceRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.registry import step
from closerlook.steps.setting import Resolver, fixed_batches, network, parts, reading_batches, statistics_batches


@step("profile")
def read_profile(recipe: ProfileRecipe, folder: RunFolder) -> None:
    """Metrics along a segment or a trained curve."""
    model = network(recipe.model, recipe.data, seed=0)
    find = Resolver(model, folder)
    splits, statistics = reading_batches(recipe), statistics_batches(recipe, model)
    curve = Subspace(recipe.curve, tuple(find.point(ref) for ref in recipe.points))
    found = profile(model, curve, splits, recipe.t, batch_stats=recipe.batch_stats, stats_loader=statistics)
    files.write_json(folder.path / "results" / "profile.json", {**found.to_dict(), "length": curve.length()})


@step("surface")
def read_surface(recipe: SurfaceRecipe, folder: RunFolder) -> None:
    """Metrics on a plane, with other points projected on it."""
    model = network(recipe.model, recipe.data, seed=0)
    find = Resolver(model, folder)
    splits, statistics = reading_batches(recipe), statistics_batches(recipe, model)
    first, second, third = (find.point(ref) for ref in recipe.points)
    found = surface(
        model, plane(first, second, third), splits, grid=recipe.grid, margin=recipe.margin,
        mark={name: find.point(ref) for name, ref in recipe.marks.items()},
        batch_stats=recipe.batch_stats, stats_loader=statistics,
    )  # fmt: skip
    files.write_json(folder.path / "results" / "surface.json", found.to_dict())


@step("barriers")
def read_barriers(recipe: BarriersRecipe, folder: RunFolder) -> None:
    """Barriers between all pairs, on the first split; and the distances between the points."""
    model = network(recipe.model, recipe.data, seed=0)
    find = Resolver(model, folder)
    splits, statistics = reading_batches(recipe), statistics_batches(recipe, model)
    points = {label: find.point(ref) for label, ref in recipe.points.items()}
    found = barrier_matrix(
        model, list(points.values()), splits[recipe.splits[0]], labels=list(points), points=recipe.t,
        batch_stats=recipe.batch_stats, stats_loader=statistics,
    )  # fmt: skip
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

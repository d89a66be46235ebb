"""Steps `directions` and `trajectory`: losses on the plane around one point, and on that of a series of points."""

from typing import Any

from closerlook.landscape import Directions, Trajectory, hessian_directions, random_directions, surface, trajectory
from closerlook.runs.recipe import DirectionsRecipe, TrajectoryRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.points import Resolver, overflow_is_missing
from closerlook.steps.readings import from_cells, reading
from closerlook.steps.registry import CELLS, helper, step
from closerlook.steps.setting import fixed_batches, parts, reading_batches


@step("directions")
def read_around(recipe: DirectionsRecipe, folder: RunFolder) -> None:
    """Metrics on the plane along two directions from a point, with other points projected on it."""
    from_cells(folder, "surface", lambda: around_in_cells(recipe, folder))


@step("trajectory")
def read_trajectory(recipe: TrajectoryRecipe, folder: RunFolder) -> None:
    """Metrics on the principal plane of a series, and how the series goes."""
    from_cells(folder, "surface", lambda: trajectory_in_cells(recipe, folder))


@helper("directions")
def around_in_cells(recipe: DirectionsRecipe, folder: RunFolder) -> dict[str, Any]:
    """The surface, its cells kept in the folder, and what is told of the directions."""
    find, settings = reading(recipe, folder)
    with overflow_is_missing(recipe.point):
        directions = _directions(recipe, find)
    found = surface(
        find.model, directions, reading_batches(recipe), grid=recipe.grid, radius=recipe.radius,
        mark={name: find.point(ref) for name, ref in recipe.marks.items()}, tolerance=recipe.tolerance,
        out=folder.path / CELLS, **settings,
    )  # fmt: skip
    return {**found.to_dict(), "directions": directions.to_dict()}


def _directions(recipe: DirectionsRecipe, find: Resolver) -> Directions:
    point = find.point(recipe.point)
    if recipe.directions == "hessian":
        return hessian_directions(
            find.model, fixed_batches(parts(recipe.data).read, recipe.batch_size), point, seed=recipe.seed
        )
    by_layer = recipe.directions == "random-layer"
    return random_directions(find.model, point, normalise="layer" if by_layer else "filter", seed=recipe.seed)


@helper("trajectory")
def trajectory_in_cells(recipe: TrajectoryRecipe, folder: RunFolder) -> dict[str, Any]:
    """The surface, its cells kept in the folder, and the series."""
    find, settings = reading(recipe, folder)
    points = {name: find.point(ref) for name, ref in zip(recipe.names, recipe.points, strict=True)}
    way: Trajectory = trajectory(find.model, points)
    found = surface(
        find.model, way, reading_batches(recipe), grid=recipe.grid, margin=recipe.margin, tolerance=recipe.tolerance,
        out=folder.path / CELLS, **settings,
    )  # fmt: skip
    return {**found.to_dict(), "trajectory": way.to_dict()}

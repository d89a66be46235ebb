"""What a step costs before it runs: images through the network, and floating-point operations."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from closerlook.runs.environment import one_thread
from closerlook.runs.recipe import (
    AgreementRecipe,
    Aligned,
    AlignRecipe,
    BoundaryRecipe,
    CompareRecipe,
    ConnectRecipe,
    DataSpec,
    DirectionsRecipe,
    File,
    ModelSpec,
    PointRef,
    PredictRecipe,
    ProbesRecipe,
    ProfileRecipe,
    Recipe,
    SharpnessRecipe,
    Snapshot,
    SurfaceRecipe,
    TrainRecipe,
    TrajectoryRecipe,
)
from closerlook.steps.setting import build_for

# Shape and classes, official training and test images of what a recipe can name without its files at hand.
_KNOWN: dict[str, tuple[tuple[int, ...], int, int]] = {
    "fashion": ((1, 32, 32), 10, 10_000), "digits": ((1, 8, 8), 10, 360),
    "cifar10": ((3, 32, 32), 10, 10_000), "cifar100": ((3, 32, 32), 100, 10_000),
    "mnist5k": ((1, 32, 32), 10, 1000), "synthetic": ((1, 16, 16), 10, 500),
}  # fmt: skip
_BACKWARD = 3  # a training step costs about three forward passes
_PRODUCTS = 5  # with the Hessian, until an eigenvalue is known: mostly 3 to 10
_CRITICAL = 4  # passes forward and backward of a critical learning rate
_LAYERS = 10  # that REPAIR measures one after the other: those of the networks here, about


@dataclass(frozen=True)
class Cost:
    """Optimizer steps, forward-pass equivalents in images (without batch norm fewer are needed), and FLOPs."""

    steps: int
    images: int
    flops: float


def cost(recipe: Recipe) -> Cost:
    """The cost of a step, counted on the network's shapes without computing."""
    steps, images = counts(recipe)
    return Cost(steps, images, images * _flops_of(recipe.model, recipe.data) + _taught(recipe))


def _taught(recipe: Recipe) -> float:
    """FLOPs of a teacher's answers."""
    if isinstance(recipe, BoundaryRecipe):
        return _tries(recipe) * _taught(recipe.train)
    if not isinstance(recipe, TrainRecipe) or recipe.teacher is None:
        return 0.0
    passes = recipe.epochs if recipe.teacher.soft == "live" else 1
    return passes * recipe.data.n_train * _flops_of(recipe.teacher.model, recipe.data)


def _flops_of(model: ModelSpec, data: DataSpec) -> float:
    return flops_per_image(model.model_dump_json(), data.name, data.resolution)


def counts(recipe: Recipe) -> tuple[int, int]:
    """Optimizer steps and images of a step: its cost without building the network."""
    if isinstance(recipe, BoundaryRecipe):
        steps, images = counts(recipe.train)
        return _tries(recipe) * steps, _tries(recipe) * images
    data = recipe.data
    if isinstance(recipe, TrainRecipe | ConnectRecipe):
        validation = data.n_validation if isinstance(recipe, TrainRecipe) else 0
        return recipe.clock.total_steps, recipe.epochs * (_BACKWARD * data.n_train + validation)
    test = _KNOWN[data.name][2] if data.name in _KNOWN else data.n_read
    per_split = {"train": data.n_read, "test": data.n_test or test}
    if isinstance(recipe, AgreementRecipe | AlignRecipe | CompareRecipe | ProbesRecipe):
        return 0, _of_two(recipe, per_split)
    if isinstance(recipe, SharpnessRecipe):
        return 0, (recipe.examples or per_split[recipe.split]) * _of_curvature(recipe)
    read = sum(per_split[split] for split in recipe.splits)
    if isinstance(recipe, PredictRecipe):
        bare = len(recipe.points) - _complete(recipe.points.values())
        return 0, len(recipe.points) * test + bare * data.n_statistics
    if isinstance(recipe, SurfaceRecipe | DirectionsRecipe | TrajectoryRecipe):
        return 0, recipe.grid[0] * recipe.grid[1] * (data.n_statistics + read) + _of_directions(recipe)
    # The two ends of a path are read once more, with their own statistics; barriers on the first split alone.
    if isinstance(recipe, ProfileRecipe):
        images = data.n_statistics + recipe.repair * _LAYERS * (data.n_statistics or data.n_read)
        return 0, recipe.t * (images + read) + _complete((recipe.points[0], recipe.points[-1])) * read
    read, others = per_split[recipe.splits[0]], len(recipe.points) - 1
    segments = len(recipe.points) * others // 2
    return 0, segments * recipe.t * (data.n_statistics + read) + others * _complete(recipe.points.values()) * read


def _of_two(recipe: AgreementRecipe | AlignRecipe | CompareRecipe | ProbesRecipe, per_split: dict[str, int]) -> int:
    """Images through two networks, and where asked for an untrained one; probes of labels have one network.

    An alignment by weights takes one batch only: to follow it, and before and after.
    """
    if isinstance(recipe, AlignRecipe):
        images = recipe.data.n_statistics or recipe.data.n_read
        return 3 * min(recipe.batch_size, images) + 2 * images * (recipe.method == "activations")
    if isinstance(recipe, ProbesRecipe):
        return (1 + (recipe.b is not None)) * (recipe.data.n_validation + per_split["test"])
    others = isinstance(recipe, CompareRecipe) and "random" in recipe.nulls
    return (2 + others) * per_split[recipe.split]


def _of_directions(recipe: SurfaceRecipe | DirectionsRecipe | TrajectoryRecipe) -> int:
    """Two eigenvectors take a gradient and products; other axes read nothing."""
    by_curvature = isinstance(recipe, DirectionsRecipe) and recipe.directions == "hessian"
    return by_curvature * recipe.data.n_read * _BACKWARD * (1 + 3 * 2 * _PRODUCTS)


def _of_curvature(recipe: SharpnessRecipe) -> int:
    """About how many forward passes: a gradient each for the whole and for every block, and a gradient's per factor."""
    gradients, products = 1 + len(recipe.blocks), _PRODUCTS * (recipe.top + len(recipe.blocks))
    return _BACKWARD * (gradients + 3 * products + _CRITICAL)


def _tries(recipe: BoundaryRecipe) -> int:
    """As many as bisection takes at most: the logarithm of the rates and one, rounded up."""
    return len(recipe.rates).bit_length()


def _complete(points: Iterable[PointRef]) -> int:
    """How many points come with batch-norm statistics of their own."""
    return sum(isinstance(point, Snapshot | File | Aligned) for point in points)


@lru_cache(maxsize=16)
def flops_per_image(model: str, data: str, resolution: int | None) -> float:
    """FLOPs of a forward pass for one image; 0 when the network cannot be built without its data."""
    if data not in _KNOWN:
        return 0.0
    channels, *size = _KNOWN[data][0]
    shape = (channels, *([resolution] * 2 if resolution else size))
    try:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network = build_for(ModelSpec.model_validate_json(model), shape, _KNOWN[data][1], seed=0).eval()
            network(torch.empty(1, *shape))
    except Exception:  # a network of the user's can raise anything there, and this is only an estimate
        return 0.0
    return float(counter.get_total_flops())


def measured_rate() -> float:
    """FLOPs per second of one core, from matrix products that take about a tenth of a second."""
    a = torch.rand(1024, 1024)
    with one_thread():
        a @ a
        started = time.perf_counter()
        for _ in range(4):
            a @ a
        return 4 * 2 * 1024**3 / (time.perf_counter() - started)

"""What a step costs before it runs: images through the network, and floating-point operations."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from closerlook.errors import UsageError
from closerlook.runs.recipe import (
    BarriersRecipe,
    ConnectRecipe,
    ModelSpec,
    PredictRecipe,
    ProfileRecipe,
    Recipe,
    SurfaceRecipe,
    TrainRecipe,
)
from closerlook.steps.setting import build_for

# Shape and classes, official training and test images of what a recipe can name without its files at hand.
_KNOWN: dict[str, tuple[tuple[int, ...], int, int]] = {
    "fashion": ((1, 28, 28), 10, 10_000), "digits": ((1, 8, 8), 10, 360),
    "cifar10": ((3, 32, 32), 10, 10_000), "synthetic": ((1, 8, 8), 10, 200),
}  # fmt: skip
_BACKWARD = 3  # a training step costs about three forward passes


@dataclass(frozen=True)
class Cost:
    """Optimizer steps, forward-pass equivalents in images, and FLOPs."""

    steps: int
    images: int
    flops: float


def cost(recipe: Recipe) -> Cost:
    """The cost of a step, counted on the network's shapes without computing."""
    steps, images = _counts(recipe)
    return Cost(
        steps,
        images,
        images * flops_per_image(recipe.model.model_dump_json(), recipe.data.name, recipe.data.resolution),
    )


def _counts(recipe: Recipe) -> tuple[int, int]:
    data = recipe.data
    if isinstance(recipe, TrainRecipe | ConnectRecipe):
        validation = data.n_validation if isinstance(recipe, TrainRecipe) else 0
        return recipe.clock.total_steps, recipe.epochs * (_BACKWARD * data.n_train + validation)
    test = _KNOWN[data.name][2] if data.name in _KNOWN else data.n_read
    per_split = {"train": data.n_read, "test": data.n_test or test}
    per_point = data.n_statistics + sum(per_split[split] for split in recipe.splits)
    if isinstance(recipe, ProfileRecipe):
        return 0, recipe.t * per_point
    if isinstance(recipe, SurfaceRecipe):
        return 0, recipe.grid[0] * recipe.grid[1] * per_point
    if isinstance(recipe, BarriersRecipe):
        return 0, recipe.t * len(recipe.points) * (len(recipe.points) - 1) // 2 * per_point
    assert isinstance(recipe, PredictRecipe)
    return 0, len(recipe.points) * test


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
    except (UsageError, RuntimeError, NotImplementedError):
        return 0.0
    return float(counter.get_total_flops())

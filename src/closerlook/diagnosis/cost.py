"""What a diagnosis costs before it runs: a few steps and a Hessian product of the very network, timed."""

import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import torch

from closerlook.batches import Feed, generators_kept
from closerlook.curvature import HessianOperator, reading
from closerlook.diagnosis.arms import recipes_of
from closerlook.diagnosis.settings import Settings
from closerlook.runs.environment import one_thread
from closerlook.runs.identity import run_id
from closerlook.steps.setting import fixed_batches, network, parts
from closerlook.training.loop import descend
from closerlook.weights import WeightSpace

_TIMED = 3
_PASSES = 30  # of a reading of sharpness: about ten products, twice that where the spectrum is dense


@dataclass(frozen=True)
class Estimate:
    """Trainings that are left of all, their steps, and the seconds of one core that they take."""

    runs: int
    of: int
    optimizer_steps: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def estimate(settings: Settings, done: Collection[str]) -> Estimate:
    """The cost of what is not done yet.

    Raises
    ------
    UsageError
        The network does not fit the data, or cannot be differentiated twice.
    """
    left = [recipe for recipe in recipes_of(settings).values() if run_id(recipe) not in done]
    if not left:
        return Estimate(0, len(recipes_of(settings)), 0, 0.0)
    with one_thread(), generators_kept():
        step, passing = _times(settings)
    readings = sum(2 * settings.ramp // recipe.watch.sharpness_every for recipe in left if recipe.watch.sharpness_every)
    seconds = len(left) * settings.steps * step + readings * _PASSES * passing
    return Estimate(len(left), len(recipes_of(settings)), len(left) * settings.steps, seconds)


def _times(settings: Settings) -> tuple[float, float]:
    """Seconds of a training step, and of a forward and backward pass over the images that carry the sharpness."""
    held, model = parts(settings.data), network(settings.model, settings.data, seed=0).train()
    feed = Feed(next(model.parameters()).device)
    batch = held.train.inputs[: settings.batch_size], held.train.targets[: settings.batch_size]
    descend(model, batch, feed)  # the first one is slow
    started = time.process_time()
    for _ in range(_TIMED):
        descend(model, batch, feed)
    step = (time.process_time() - started) / _TIMED
    with reading(model):
        hessian = HessianOperator(model, fixed_batches(held.read, settings.data.n_read), feed, WeightSpace(model))
        zero = torch.zeros(hessian.size, dtype=hessian.dtype, device=hessian.device)
        hessian.product(zero)  # as here
        before, started = hessian.passes, time.process_time()
        hessian.product(zero)
        return step, (time.process_time() - started) / (hessian.passes - before)

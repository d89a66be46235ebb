"""What the instruments of this room share: the way in, and what every result says about its reading."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from closerlook.batches import BatchFn, Feed, Loader, check_loader, feed_for
from closerlook.curvature.hessian import HessianOperator
from closerlook.curvature.modes import BatchNorm, reading
from closerlook.evaluation import check_repeatable
from closerlook.weights import WeightSpace


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """What was read: `n` examples in `batches` batches, at a mean loss of `loss`.

    `batch_norm` says whose statistics normalise; dropout is off. `parameters` counts the trained ones, the `frozen` are
    left out. `passes` is the cost in forward and backward passes over all batches: a gradient counts 1, a second
    backward pass 2, so a product with the Hessian 3; with a single batch its graph is kept, and all but the first
    count 2. What that is in time is measured in docs/curvature.md.
    """

    n: int
    batches: int
    loss: float
    batch_norm: str
    parameters: int
    frozen: tuple[str, ...]
    passes: float

    @property
    def value(self) -> float:
        """The number that the reading is about, which `float` gives."""
        raise NotImplementedError

    def __float__(self) -> float:
        return self.value

    def told(self) -> dict[str, Any]:
        """The reading as plain values."""
        names = ("n", "batches", "loss", "batch_norm", "parameters", "passes")
        return {**{name: getattr(self, name) for name in names}, "frozen": list(self.frozen)}


@dataclass(frozen=True)
class Opened:
    """A model in the modes in which it is read, its space, and how batches reach it."""

    model: nn.Module
    loader: Loader
    feed: Feed
    space: WeightSpace
    batch_norm: BatchNorm

    def operator(self, names: Sequence[str] | None = None) -> HessianOperator:
        """The Hessian of the mean loss, or its diagonal block of the parameters named."""
        return HessianOperator(self.model, self.loader, self.feed, self.space, names)

    def told(self, operator: HessianOperator, passes: float) -> dict[str, Any]:
        """What a result says about its reading."""
        frozen = tuple(name for name in self.space.names if name not in set(operator.names))
        return {
            "n": operator.n, "batches": operator.batches, "loss": operator.loss, "batch_norm": self.batch_norm,
            "parameters": operator.size, "frozen": frozen, "passes": passes,
        }  # fmt: skip


@contextmanager
def opened(
    model: nn.Module,
    loader: Loader,
    *,
    params: str,
    batch_norm: BatchNorm,
    batch_fn: BatchFn | None,
    device: str | torch.device | None,
    autocast: torch.dtype | None,
) -> Iterator[Opened]:
    """The model in the modes in which it is read, after the probe of model and loader; all comes back as it was."""
    check_loader(loader)
    model, feed = feed_for(model, batch_fn, device, autocast)
    space = WeightSpace(model, params)
    with reading(model, batch_norm):
        check_repeatable(model, loader, feed)
        yield Opened(model, loader, feed, space, batch_norm)

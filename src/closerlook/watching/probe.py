"""Curvature at the weights of a running training, on fixed batches: sharpness, thresholds, critical learning rate."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from closerlook.batches import BatchFn, Feed, Loader, check_loader, feed_for, generators_kept
from closerlook.curvature import HessianOperator, reading, stability_threshold, top_eigenvalues
from closerlook.curvature.critical_lr import critical_lr
from closerlook.curvature.preconditioner import preconditioner_of
from closerlook.errors import NotFiniteError, UsageError
from closerlook.evaluation import check_repeatable
from closerlook.weights import WeightSpace, named
from closerlook.weights.blocks import dots

MOST_BLOCK_READINGS = 5
_TOLERANCE = 0.05  # relative: what is read is compared with a threshold, or with the rate in use


@dataclass
class Probe:
    """Fixed batches on which a live model's curvature is read; nothing of the model or its optimizer is changed."""

    model: nn.Module
    optimizer: Optimizer
    loader: Loader
    blocks: Mapping[str, Sequence[str]]
    batch_fn: BatchFn | None = None
    space: WeightSpace = field(init=False)
    feed: Feed = field(init=False)
    _by_block: int = field(default=0, init=False)  # readings of single blocks; no more once a block was unstable
    _near: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_loader(self.loader, "probe")
        stability_threshold(self.optimizer)  # an optimizer without one is refused here
        self.space = WeightSpace(self.model)
        self.feed = feed_for(self.model, self.batch_fn)[1]
        self._check_trained()

    def _check_trained(self) -> None:
        trained = {id(value) for group in self.optimizer.param_groups for value in group["params"]}
        every = named(self.model).parameters
        left = [name for name in self.space.names if every[name].requires_grad and id(every[name]) not in trained]
        if left:
            raise UsageError(
                f"the optimizer does not train {left[0]}, whose curvature the probe would read; pass the optimizer of "
                "all trained parameters, freeze the others (requires_grad_(False)), or leave the probe out"
            )

    def seconds_per_pass(self) -> float:
        """Check that batches and model repeat and can be differentiated twice; the time of a pass, measured."""
        with kept(self.loader), reading(self.model):
            check_repeatable(self.model, self.loader, self.feed, "probe")
            hessian = self._hessian()
            zero = torch.zeros(hessian.size, dtype=hessian.dtype, device=hessian.device)
            hessian.product(zero)  # the first one is slow
            before, started = hessian.passes, time.perf_counter()
            float(hessian.product(zero).sum())
            return (time.perf_counter() - started) / (hessian.passes - before)

    def read(self, step: int) -> dict[str, Any]:
        """What is read before a step; a loss that is not finite leaves None."""
        lr = rate_of(self.optimizer)
        row: dict[str, Any] = {"step": step, "lr": lr, "threshold": stability_threshold(self.optimizer)}
        with kept(self.loader):
            try:
                return {**row, **self._sharpness(row["threshold"]), **self._critical()}
            except NotFiniteError as error:
                nothing: dict[str, Any] = {"sharpness": None, "shares": {}, "blocks": {}, "critical_lr": None}
                return {**row, **nothing, "note": str(error)}

    def _sharpness(self, threshold: float) -> dict[str, Any]:
        adaptive = isinstance(self.optimizer, Adam | AdamW)
        if adaptive and not self.optimizer.state:
            return {"sharpness": None, "shares": {}, "blocks": {}}  # nothing to precondition by yet
        scale = preconditioner_of(self.optimizer, self.model, self.space).sqrt() if adaptive else None
        with reading(self.model):
            whole = self._hessian()
            found = top_eigenvalues(whole, scale=scale, tolerance=_TOLERANCE)
            value = float(found.values[0])
            shares = dots(found.vectors[0], found.vectors[0], whole.spans(), self.blocks)
            # No diagonal block is sharper than the whole: where that is stable, so is every block.
            due = value > threshold and self._by_block < MOST_BLOCK_READINGS
            own = {block: self._own(names, scale) for block, names in self.blocks.items() if due}
        decided = any(each > threshold for each in own.values())
        self._by_block += MOST_BLOCK_READINGS if decided else due
        return {"sharpness": value, "shares": shares, "blocks": own}

    def _own(self, names: Sequence[str], scale: Tensor | None) -> float:
        return float(top_eigenvalues(self._hessian(names), scale=scale, tolerance=_TOLERANCE).values[0])

    def _critical(self) -> dict[str, Any]:
        found = critical_lr(
            self.model, self.loader, direction=self.optimizer, batch_fn=self.batch_fn, tolerance=_TOLERANCE,
            start=self._near,
        )  # fmt: skip
        if 0 < found.value < math.inf:
            self._near = found.value
        return {"critical_lr": found.value, "note": found.bracket.note}

    def _hessian(self, names: Sequence[str] | None = None) -> HessianOperator:
        return HessianOperator(self.model, self.loader, self.feed, self.space, names)


def rate_of(optimizer: Optimizer) -> float:
    """The learning rate in use: of the first group that has one above 0."""
    return next((float(group["lr"]) for group in optimizer.param_groups if float(group["lr"])), 0.0)


@contextmanager
def kept(loader: Loader) -> Iterator[None]:
    """Gradients on, and every generator back afterwards: a reading draws nothing from the training's."""
    with generators_kept(loader), torch.enable_grad():
        yield

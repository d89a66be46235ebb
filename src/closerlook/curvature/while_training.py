"""Sharpness while a network trains, beside the threshold above which its optimizer is unstable."""

import math
from dataclasses import dataclass
from typing import Any

from torch.optim import Adam, AdamW

from closerlook.batches import Loader
from closerlook.curvature.hessian import HessianOperator
from closerlook.curvature.modes import reading
from closerlook.curvature.preconditioner import preconditioner_of
from closerlook.curvature.sharpness import top_eigenvalues
from closerlook.curvature.thresholds import stability_threshold
from closerlook.durations import Duration, to_steps
from closerlook.errors import NotFiniteError, UsageError
from closerlook.training.interventions import Subject
from closerlook.training.loop import Observer, Tick
from closerlook.training.observers import Instrument
from closerlook.weights import WeightSpace
from closerlook.weights.blocks import Blocks, blocks_of, dots


@dataclass(frozen=True)
class SharpnessTrace(Instrument):
    """Every few steps the top Hessian eigenvalue on fixed batches, and where its eigenvector lies.

    A row holds ``sharpness``; ``threshold``, above which the optimizer's last step was unstable on a quadratic
    (`stability_threshold`; None before the first step and after one at rate 0); ``shares`` of the eigenvector per
    block; and the ``residual`` and number of ``products``. With Adam and AdamW all of it is that of the preconditioned
    Hessian, once every parameter has taken a step. A loss that is not finite has no sharpness (None).

    Parameters
    ----------
    loader
        Fixed batches, the same at every reading; a single one is the cheapest.
    every, until
        Steps between two readings, and the time after which there are none.
    blocks
        Patterns of parameter names by block; by default every layer is one.

    Notes
    -----
    Cost: `sharpness` on these batches, from a new start each time so that a resumed run reads the same numbers.

    Examples
    --------
    >>> import torch
    >>> import closerlook as cl
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> rows = cl.train(torch.nn.Linear(4, 4), data, lr=0.1, epochs=2, observers=[SharpnessTrace(data)]).observations
    >>> rows[1]["sharpness"] < rows[1]["threshold"]
    True
    """

    loader: Loader
    every: int = 1
    until: Duration = "1dur"
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        """Refuse an interval that never comes."""
        if self.every < 1:
            raise UsageError(f"sharpness cannot be read every {self.every} steps; give at least 1")

    def bind(self, subject: Subject) -> Observer:
        """Check the blocks and begin to watch."""
        space = WeightSpace(subject.model)
        blocks_of(space.names, self.blocks or True)
        return _SharpnessWatch(self, subject, space, to_steps(self.until, subject.clock))


class _SharpnessWatch:
    def __init__(self, settings: SharpnessTrace, subject: Subject, space: WeightSpace, until: int) -> None:
        self._settings, self._subject, self._space, self._until = settings, subject, space, until

    def __call__(self, tick: Tick) -> dict[str, Any] | None:
        if tick.diverged or tick.step > self._until or tick.step % self._settings.every:
            return None
        optimizer = self._subject.optimizer
        adaptive = isinstance(optimizer, Adam | AdamW)
        waiting = [value for value in self._subject.parameters.values() if value not in optimizer.state]
        if adaptive and (tick.step == 0 or waiting):
            return None  # nothing to precondition by yet, for all or for those frozen from the start
        threshold = stability_threshold(optimizer) if tick.step else math.inf
        # A row is plain JSON, which knows no infinity.
        return {"threshold": threshold if math.isfinite(threshold) else None, **self._read(adaptive)}

    def _read(self, adaptive: bool) -> dict[str, Any]:
        subject = self._subject
        scale = preconditioner_of(subject.optimizer, subject.model, self._space).sqrt() if adaptive else None
        try:
            with reading(subject.model):
                hessian = HessianOperator(subject.model, self._settings.loader, subject.feed, self._space)
                found = top_eigenvalues(hessian, scale=scale)
        except NotFiniteError:
            return {"sharpness": None, "residual": None, "shares": {}, "products": 0}
        groups = blocks_of(hessian.names, self._settings.blocks or True)
        shares = dots(found.vectors[0], found.vectors[0], hessian.spans(), groups)
        return {
            "sharpness": float(found.values[0]), "residual": float(found.residuals[0]), "shares": shares,
            "products": found.products,
        }  # fmt: skip

"""Clipping the gradient's norm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from closerlook.errors import UsageError
from closerlook.training.interventions.change import Change, Intervention, Subject


@dataclass(frozen=True)
class Clip(Intervention):
    """Shorten the gradient to a norm where it is longer.

    **What.** The norm is that of all gradients together, those of frozen parameters left out.

    **Formula.** ``g <- g min(1, norm / |g|)``; a gradient that is short enough keeps its bits.

    **Cost.** Two passes over the gradient.

    **Source.** Pascanu, Mikolov, Bengio 2013 (arXiv 1211.5063), algorithm 1; `torch.nn.utils.clip_grad_norm_`.

    Examples
    --------
    >>> Clip(1.0).norm
    1.0
    """

    norm: float
    kind: Literal["clip"] = "clip"

    def bind(self, subject: Subject) -> Change:
        """Check the norm."""
        if not self.norm > 0:
            raise UsageError(f"a gradient cannot be clipped to a norm of {self.norm}; give one above 0")
        return _Clipped(self.norm)


class _Clipped(Change):
    def __init__(self, norm: float) -> None:
        self._norm = norm

    def gradients(self, step: int, free: Sequence[nn.Parameter]) -> None:
        nn.utils.clip_grad_norm_(free, self._norm)

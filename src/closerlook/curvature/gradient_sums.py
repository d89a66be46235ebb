"""Sums of the gradients of batches: signal and noise of a gradient, and a jackknife over groups of batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from closerlook.curvature.hessian import HessianOperator
from closerlook.weights.blocks import dots

GROUPS = 20  # of batches, for the jackknife: as many vectors are kept


@dataclass(frozen=True)
class Noise:
    """Of one set of parameters.

    `squared_gradient` estimates |G|^2 of the expected gradient G without bias, `variance` the trace of the covariance
    of one example's gradient; both may come out at or below 0 by chance. `scale` is their ratio, in examples: infinite
    where no signal was found. `low` and `high` are the ends of its interval.
    """

    scale: float
    low: float
    high: float
    squared_gradient: float
    variance: float


@dataclass
class _Group:
    """Some batches: their examples, the sum s of their gradients, and per set of parameters ``sum_k |s_k|^2 / n_k``."""

    total: Tensor
    squares: dict[str, float]
    n: int = 0
    batches: int = 0

    def add(self, n: int, gradient: Tensor, squares: Mapping[str, float]) -> None:
        self.total += gradient
        self.squares = {name: value + squares[name] / n for name, value in self.squares.items()}
        self.n, self.batches = self.n + n, self.batches + 1


@dataclass
class GradientSums:
    """What all batches sum to, and the parts that the jackknife leaves out."""

    groups: list[_Group] = field(default_factory=list)
    inner: list[dict[str, float]] = field(default_factory=list)  # products of each group's sum with that of all
    squared: list[dict[str, float]] = field(default_factory=list)  # squared norms of each group's sum
    whole: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, operator: HessianOperator, every: Mapping[str, Sequence[str]]) -> "GradientSums":
        """Of one pass over the operator's batches, for several sets of parameters."""
        spans, made = operator.spans(), cls()
        for number, (n, gradient) in enumerate(operator.batch_gradients()):
            if number < GROUPS:
                made.groups.append(_Group(torch.zeros_like(gradient), dict.fromkeys(every, 0.0)))
            made.groups[number % GROUPS].add(n, gradient, dots(gradient, gradient, spans, every))
        total = sum((group.total for group in made.groups[1:]), made.groups[0].total)
        made.whole = dots(total, total, spans, every)
        made.inner = [dots(group.total, total, spans, every) for group in made.groups]
        made.squared = [dots(group.total, group.total, spans, every) for group in made.groups]
        return made

    @property
    def batches(self) -> int:
        """Number of batches."""
        return sum(group.batches for group in self.groups)

    def noise(self, name: str, level: float) -> Noise:
        """Both estimates from all batches, their ratio, and its interval."""
        every = [self._moments(name, None), *(self._moments(name, left) for left in range(len(self.groups)))]
        ratio, *each = (signal / noise if noise > 0 else math.inf for signal, noise in every)
        if math.isinf(ratio):
            return Noise(0.0, 0.0, 0.0, *every[0])
        g = len(self.groups)
        reach = float(np.sqrt((g - 1) * np.var(each)) * student.ppf((1 + level) / 2, g - 1))
        return Noise(_inverse(ratio), _inverse(ratio + reach), _inverse(ratio - reach), *every[0])

    def _moments(self, name: str, left: int | None) -> tuple[float, float]:
        """|G|^2 and tr(Sigma) without one group."""
        kept = [group for number, group in enumerate(self.groups) if number != left]
        n, batches = sum(group.n for group in kept), sum(group.batches for group in kept)
        squared = self.whole[name]
        if left is not None:
            squared += self.squared[left][name] - 2 * self.inner[left][name]
        variance = (sum(group.squares[name] for group in kept) - squared / n) / (batches - 1)
        return squared / n**2 - variance / n, variance


def _inverse(ratio: float) -> float:
    return 1 / ratio if ratio > 0 else math.inf

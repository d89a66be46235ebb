"""Planted truths: what the arms are really worth, how runs scatter, and which verdicts would be wrong."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from closerlook.evidence.rule import Outcome, Rule

Draws = Mapping[tuple[str, str], NDArray[np.float64]]  # by arm and quantity: [draws, n]

# Standard deviation of a paired difference. At a margin the rates do not depend on it: the t interval is exact there.
SPREAD = {
    "accuracy": 0.005, "separation": 0.15, "function_separation": 0.15, "boundary_share": 0.15, "divergence": 0.05,
    "recovered_divergence": 0.05, "depth_contrast": 0.05, "specific_contrast": 0.02, "curve_barrier": 0.005,
}  # fmt: skip
LEVELS = {
    "accuracy": 0.85, "separation": 0.50, "function_separation": 0.50, "boundary_share": 1.0, "divergence": 1.0,
    "recovered_divergence": 0.5, "depth_contrast": 0.2, "specific_contrast": 0.1, "curve_barrier": 0.30,
}  # fmt: skip
# What a run has or lacks where outcomes are all or nothing: it trains or stays at chance; it crosses a barrier or not.
ALL = {
    "accuracy": 0.75, "separation": 1.0, "function_separation": 1.0, "boundary_share": 1.0, "curve_barrier": 0.30,
}  # fmt: skip


def kind(quantity: str) -> str:
    """A quantity without the measure that it is read in: "depth_contrast" of "depth_contrast:cka"."""
    return quantity.partition(":")[0]


def spread(quantity: str) -> float:
    """Standard deviation of a paired difference of a quantity, in whatever measure."""
    return SPREAD[kind(quantity)]


@dataclass(frozen=True)
class Truth:
    """True effects of the parts, how outcomes scatter around them, and the verdicts that are wrong under them.

    Attributes
    ----------
    name
        What is planted.
    effects
        True mean difference of each part.
    wrong
        Verdicts that would be wrong; at a margin both are.
    all_or_nothing
        Every run has the whole outcome or none of it, independently in each arm, instead of normal scatter.
    best
        Share of the runs with the whole outcome in the arm that the others are measured from.
    bounded
        Whether the rule promises at most 5 % of each wrong verdict under this truth.
    together
        The measures of one quantity scatter as one (with equal noise) instead of independently.
    noise
        Normal scatter upon outcomes that are all or nothing, over the spread of their quantity.
    skewed
        Values scatter exponentially around their means, as those do that cannot be negative, instead of normally.
    """

    name: str
    effects: Mapping[str, float]
    wrong: tuple[Outcome, ...] = field(default=("supported", "contradicted"))
    all_or_nothing: bool = False
    best: float = 0.5
    bounded: bool = True
    together: bool = False
    noise: float = 0.0
    skewed: bool = False

    def draw(self, rule: Rule, n: int, draws: int, generator: np.random.Generator) -> Draws:
        """Values of every arm over `n` seeds in `draws` studies."""
        values: dict[tuple[str, str], NDArray[np.float64]] = {}
        first: dict[tuple[str, str], tuple[float, NDArray[np.float64]]] = {}
        for (arm, quantity), below in self._below(rule).items():
            known = first.get((arm, kind(quantity))) if self.together else None
            if known is None:
                values[arm, quantity] = self._sample(quantity, below, (draws, n), generator)
                first[arm, kind(quantity)] = below, values[arm, quantity]
            else:
                values[arm, quantity] = known[1] + (known[0] - below)
        return values

    def _below(self, rule: Rule) -> dict[tuple[str, str], float]:
        """How far each arm lies below the level of its quantity, so that every part has its effect.

        The first arm of a quantity is at the level. A part whose baselines are known places its arm, any other places
        its baseline; a part without baselines has its effect as its value.
        """
        below: dict[tuple[str, str], float] = {}
        for part in rule.parts:
            known = [below[arm, part.quantity] for arm in part.baselines if (arm, part.quantity) in below]
            if not part.baselines:
                top = self.best * ALL[part.quantity] if self.all_or_nothing else LEVELS[kind(part.quantity)]
                below[part.arm, part.quantity] = top - self.effects[part.name]
            elif len(known) == len(part.baselines):
                below[part.arm, part.quantity] = sum(known) / len(known) - self.effects[part.name]
            else:
                start = below.setdefault((part.arm, part.quantity), 0.0)
                below[part.baselines[0], part.quantity] = start + self.effects[part.name]
        return below

    def _sample(
        self, quantity: str, below: float, shape: tuple[int, int], generator: np.random.Generator
    ) -> NDArray[np.float64]:
        if self.all_or_nothing:
            found = _two_valued(quantity, self.best - below / ALL[quantity], shape, generator)
            return found + self.noise * spread(quantity) * generator.standard_normal(shape) if self.noise else found
        if self.skewed:
            return generator.exponential(LEVELS[kind(quantity)] - below, shape)
        return _normal(quantity, below, shape, generator)


def _normal(quantity: str, below: float, shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float64]:
    # Two independent arms make the difference: each has 1 / sqrt(2) of its standard deviation.
    return generator.normal(LEVELS[kind(quantity)] - below, spread(quantity) / math.sqrt(2), shape)


def _two_valued(
    quantity: str, share: float, shape: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.float64]:
    return np.where(generator.random(shape) < share, LEVELS[quantity], LEVELS[quantity] - ALL[quantity])

"""Planted truths: what the arms are really worth, how runs scatter, and which verdicts would be wrong."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from closerlook.evidence.rule import Outcome, Rule

Draws = Mapping[tuple[str, str], NDArray[np.float64]]  # by arm and quantity: [draws, n]

# Standard deviation of a paired difference. At a margin the rates do not depend on it: the t interval is exact there.
SPREAD = {"accuracy": 0.005, "separation": 0.15, "function_separation": 0.15, "boundary_share": 0.15}
LEVELS = {"accuracy": 0.85, "separation": 0.50, "function_separation": 0.50, "boundary_share": 1.0}
# What a run has or lacks where outcomes are all or nothing: it trains or stays at chance; it crosses a barrier or not.
ALL = {"accuracy": 0.75, "separation": 1.0, "function_separation": 1.0, "boundary_share": 1.0}


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
    """

    name: str
    effects: Mapping[str, float]
    wrong: tuple[Outcome, ...] = field(default=("supported", "contradicted"))
    all_or_nothing: bool = False
    best: float = 0.5
    bounded: bool = True

    def draw(self, rule: Rule, n: int, draws: int, generator: np.random.Generator) -> Draws:
        """Values of every arm over `n` seeds in `draws` studies."""
        return {
            key: self._sample(key[1], below, (draws, n), generator) for key, below in self._below(rule).items()
        }  # fmt: skip

    def _below(self, rule: Rule) -> dict[tuple[str, str], float]:
        """How far each arm lies below the level of its quantity, so that every part has its effect.

        The first arm of a quantity is at the level. A part whose baselines are known places its arm, any other places
        its baseline; a part without baselines has its effect as its value.
        """
        below: dict[tuple[str, str], float] = {}
        for part in rule.parts:
            known = [below[arm, part.quantity] for arm in part.baselines if (arm, part.quantity) in below]
            if not part.baselines:
                top = self.best * ALL[part.quantity] if self.all_or_nothing else LEVELS[part.quantity]
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
            return _two_valued(quantity, self.best - below / ALL[quantity], shape, generator)
        return _normal(quantity, below, shape, generator)


def _normal(quantity: str, below: float, shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float64]:
    # Two independent arms make the difference: each has 1 / sqrt(2) of its standard deviation.
    return generator.normal(LEVELS[quantity] - below, SPREAD[quantity] / math.sqrt(2), shape)


def _two_valued(
    quantity: str, share: float, shape: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.float64]:
    return np.where(generator.random(shape) < share, LEVELS[quantity], LEVELS[quantity] - ALL[quantity])

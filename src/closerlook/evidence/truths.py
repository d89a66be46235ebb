"""Planted truths for the restarts rule: what the arms are really worth, and which verdicts would be wrong."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from closerlook.evidence.rule import Outcome, Rule

Draws = Mapping[tuple[str, str], NDArray[np.float64]]  # by arm and quantity: [draws, n]

# Standard deviation of a paired difference. At a margin the rates do not depend on it: the t interval is exact there.
SPREAD = {"accuracy": 0.005, "separation": 0.15, "function_separation": 0.15}
LEVELS = {"accuracy": 0.85, "separation": 0.50, "function_separation": 0.50}
# What a run has or lacks where outcomes are all or nothing: it trains or stays at chance; it crosses a barrier or not.
ALL = {"accuracy": 0.75, "separation": 1.0, "function_separation": 1.0}


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
    bounded
        Whether the rule promises at most 5 % of each wrong verdict under this truth.
    """

    name: str
    effects: Mapping[str, float]
    wrong: tuple[Outcome, ...] = field(default=("supported", "contradicted"))
    all_or_nothing: bool = False
    bounded: bool = True

    def draw(self, rule: Rule, n: int, draws: int, generator: np.random.Generator) -> Draws:
        """Values of every arm over `n` seeds in `draws` studies; the parts must all subtract from one arm."""
        sample = _two_valued if self.all_or_nothing else _normal
        below: dict[tuple[str, str], float] = {}
        for part in rule.parts:
            below[part.arm, part.quantity] = 0.0
            below[part.baseline, part.quantity] = self.effects[part.name]
        return {key: sample(key[1], effect, (draws, n), generator) for key, effect in below.items()}


def _normal(quantity: str, below: float, shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float64]:
    # Two independent arms make the difference: each has 1 / sqrt(2) of its standard deviation.
    return generator.normal(LEVELS[quantity] - below, SPREAD[quantity] / math.sqrt(2), shape)


def _two_valued(
    quantity: str, below: float, shape: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.float64]:
    share = 0.5 - below / ALL[quantity]
    return np.where(generator.random(shape) < share, LEVELS[quantity], LEVELS[quantity] - ALL[quantity])


def planted(rule: Rule) -> Iterator[Truth]:
    """Truths to test the rule with: clear ones, its margins one by one, and those that it makes no promise for.

    No promise: no gain over either baseline while E1 and E2 hold, and E0 and E3 both at the margin (what E0 says then
    turns the verdict), and outcomes that are all or nothing (a t interval assumes scatter).
    """
    margins = {part.name: part.margin for part in rule.parts}
    far = {part.name: part.margin + 20 * SPREAD[part.quantity] for part in rule.parts}
    clear = {part.name: part.margin + 2 * SPREAD[part.quantity] for part in rule.parts}
    yield Truth("effect: every part 2 SD above its margin", clear, wrong=("supported",))
    opposite = {part.name: -2 * SPREAD[part.quantity] for part in rule.parts}
    yield Truth("opposite: every effect 2 SD below zero", opposite, wrong=("contradicted",))
    yield Truth("none: every effect zero", dict.fromkeys(margins, 0.0), wrong=("contradicted",))
    yield Truth("every part at its margin", margins)
    for at in (("E1",), ("E2",), ("E3",), ("E1", "E3")):
        name = f"{' and '.join(at)} at the margin, the rest far above"
        yield Truth(name, far | {part: margins[part] for part in at})
    idle = far | {"E0": 0.0, "E3": 0.0}
    yield Truth("E0 and E3 zero, E1 at the margin", idle | {"E1": margins["E1"]}, wrong=("contradicted",))
    yield Truth("E0 and E3 zero, E1 and E2 far above", idle, wrong=("supported",), bounded=False)
    corner = far | {"E0": margins["E0"], "E3": margins["E3"]}
    yield Truth("E0 and E3 at the margin, E1 and E2 far above", corner, bounded=False)
    yield Truth("all or nothing, every part at its margin", margins, all_or_nothing=True, bounded=False)

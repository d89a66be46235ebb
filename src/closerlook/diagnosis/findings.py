"""What the trainings of a diagnosis say about warmup: by intervention, counted over the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from closerlook.diagnosis.outcomes import Outcomes
from closerlook.diagnosis.settings import MARGIN
from closerlook.evidence.paired import LEVEL, spread

HALF = 0.5  # of warmup's benefit: who brings more removes the instability
State = Literal["unstable", "stable", "worse with warmup", "neither trains"]


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes
    ----------
    states : per seed ``"unstable"`` where training with the longest warmup ends more than five points of validation
        accuracy above that without one, ``"worse with warmup"`` where it ends so far below, ``"neither trains"`` where
        both end at chance, else ``"stable"``.
    benefit : accuracy with the longest warmup less that without, per seed.
    slow : accuracy at a quarter of the rate without warmup, less that with the longest one, per seed.
    works : per length of warmup the seeds in which training ends within five points of the longest one's.
    shares : per arm and unstable seed its part of the benefit.
    length : the shortest length that works in all seeds, as do all longer ones; None where there is none.
    """

    states: Mapping[int, State]
    benefit: Mapping[int, float]
    slow: Mapping[int, float]
    works: Mapping[int, tuple[int, ...]]
    shares: Mapping[str, Mapping[int, float]]
    length: int | None

    @property
    def unstable(self) -> list[int]:
        """The unstable seeds."""
        return [seed for seed, state in self.states.items() if state == "unstable"]

    def removes(self, arm: str) -> list[int]:
        """The unstable seeds in which an arm brings more than half of warmup's benefit."""
        return [seed for seed, share in self.shares[arm].items() if share > HALF]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, with intervals over seeds."""
        return {
            "states": dict(self.states),
            "benefit": {**summary(list(self.benefit.values())), "by_seed": dict(self.benefit)},
            "slow": {**summary(list(self.slow.values())), "by_seed": dict(self.slow)},
            "lengths": {length: {"works_in": list(seeds)} for length, seeds in self.works.items()},
            "shares": {arm: {**summary(list(of.values())), "by_seed": dict(of), "removes_in": self.removes(arm)}
                       for arm, of in self.shares.items()},
            "length": self.length,
        }  # fmt: skip


def find(found: Outcomes) -> Findings:
    """Compare the trainings seed by seed."""
    s, by_arm = found.settings, found.by_arm
    warm, none = by_arm[f"W:{s.ramp}"], by_arm["N"]
    benefit = {seed: warm[seed].accuracy - none[seed].accuracy for seed in s.seeds}
    states = {seed: _state(found, seed, benefit[seed]) for seed in s.seeds}
    works = {
        length: tuple(
            seed for seed, outcome in by_arm[f"W:{length}"].items()
            if outcome.learned(found.chance) and outcome.accuracy >= warm[seed].accuracy - MARGIN
        )
        for length in s.lengths
    }  # fmt: skip
    shares = {
        arm: {seed: (of[seed].accuracy - none[seed].accuracy) / benefit[seed]
              for seed, state in states.items() if state == "unstable"}
        for arm, of in by_arm.items() if arm != "N"
    }  # fmt: skip
    slow = {seed: by_arm["Q"][seed].accuracy - warm[seed].accuracy for seed in s.seeds}
    return Findings(states, benefit, slow, works, shares, _shortest(works, s.seeds))


def _shortest(works: Mapping[int, Sequence[int]], seeds: Sequence[int]) -> int | None:
    """The shortest length that works in all seeds, as do all longer ones."""
    found = None
    for length in sorted(works, reverse=True):
        if len(works[length]) < len(seeds):
            break
        found = length
    return found


def _state(found: Outcomes, seed: int, benefit: float) -> State:
    warm, none = found.by_arm[f"W:{found.settings.ramp}"][seed], found.by_arm["N"][seed]
    if not warm.learned(found.chance) and not none.learned(found.chance):
        return "neither trains"
    return "unstable" if benefit > MARGIN else "worse with warmup" if benefit < -MARGIN else "stable"


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean of values over seeds, with Student's interval from two seeds on; None for what is not known."""
    numbers = zip(("mean", "low", "high"), spread(values), strict=True)
    known = {name: None if np.isnan(number) else number for name, number in numbers}
    return {**known, "n": len(values), "level": LEVEL}

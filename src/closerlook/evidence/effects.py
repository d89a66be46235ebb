"""One effect over seeds: its values, mean, intervals, answers, and the smallest effect that could be decided."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from closerlook.errors import UsageError
from closerlook.evidence.paired import FEWEST, LEVEL, TIE, Answer, half_width, in_words, sides, t_interval


@dataclass(frozen=True)
class Interval:
    """A t interval at one level and its answer; `low` and `high` are None with fewer than two values."""

    level: float
    low: float | None
    high: float | None
    answer: Answer


@dataclass(frozen=True)
class Shares:
    """Shares of the seeds strictly on each side of the margin and of zero; None without any value."""

    above_margin: float | None
    below_margin: float | None
    above_zero: float | None
    below_zero: float | None


@dataclass(frozen=True)
class Effect:
    """A paired effect over seeds, in the unit of its values.

    Attributes
    ----------
    values
        Difference per seed; None where an arm has no value.
    margin
        Smallest effect that matters.
    n
        Number of seeds with a value.
    mean, sd
        Over those seeds; None where there are too few.
    intervals
        One per level, narrowest first.
    smallest_decidable
        Margin plus half-width at the first level: a true effect below this could not have been told from the margin.
    shares
        Shares of the seeds on each side of the margin and of zero.
    """

    values: Mapping[str, float | None]
    margin: float
    n: int
    mean: float | None
    sd: float | None
    intervals: tuple[Interval, ...]
    smallest_decidable: float | None
    shares: Shares

    @property
    def answer(self) -> Answer:
        """Answer at the first level."""
        return self.intervals[0].answer

    def answering(self, answer: Answer) -> "Effect":
        """The same numbers with another answer at every level: they are shown, and say nothing."""
        return replace(self, intervals=tuple(replace(each, answer=answer) for each in self.intervals))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, None where there is none; `effect`, `low`, `high`, `answer` are those of the first level."""
        first = self.intervals[0]
        plain = asdict(self) | {"values": dict(self.values), "intervals": [asdict(each) for each in self.intervals]}
        return plain | {"effect": self.mean, "low": first.low, "high": first.high, "answer": first.answer}


def paired_effect(
    values: Mapping[str, float | None], margin: float, levels: Sequence[float] = (LEVEL,), needs: int = FEWEST
) -> Effect:
    """Effect over seeds: "yes" if its whole interval lies above `margin`, "no" if below, else "open".

    A missing value (None or not finite) leaves every answer open: what is left over was selected by the outcome.
    Equal values give an interval of no width, which answers from five seeds on. An end within 1e-12 of the margin
    touches it.

    Parameters
    ----------
    values
        Difference of the two arms for each seed.
    margin
        Smallest effect that matters, in the unit of the values.
    levels
        Coverage of each interval: 0.9, and ``1 - 0.1 / k`` where any one of k parts suffices.
    needs
        Seeds below which every answer is open: 3, and 5 for outcomes that are all or nothing.

    Raises
    ------
    UsageError
        The margin is not finite, there is no level, or one that is not between 0 and 1.

    Examples
    --------
    >>> found = paired_effect({"100": 0.31, "101": 0.28, "102": 0.36}, margin=0.1)
    >>> found.answer, round(found.mean, 3), round(found.smallest_decidable, 3)
    ('yes', 0.317, 0.168)
    """
    if not math.isfinite(margin) or not levels:
        raise UsageError(f"an effect needs a finite margin and a level, not {margin} and {levels}; give both")
    known = {str(seed): value if _is_known(value) else None for seed, value in values.items()}
    present = np.array([value for value in known.values() if value is not None], dtype=np.float64)
    decides = len(present) == len(known) and len(present) >= needs
    return Effect(
        values=known,
        margin=margin,
        n=len(present),
        mean=float(present.mean()) if len(present) else None,
        sd=float(present.std(ddof=1)) if len(present) > 1 else None,
        intervals=tuple(_interval(present, margin, level, decides) for level in sorted(levels)),
        smallest_decidable=_smallest_decidable(present, margin, min(levels)),
        shares=_shares(present, margin),
    )


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _interval(present: np.ndarray, margin: float, level: float, decides: bool) -> Interval:
    if len(present) < 2:
        return Interval(level, None, None, "open")
    low, high = t_interval(present, level)
    side = int(sides(present, margin, level)) if decides else 0
    return Interval(level, float(low), float(high), in_words(side))


def _smallest_decidable(present: np.ndarray, margin: float, level: float) -> float | None:
    if len(present) < 2:
        return None
    return margin + half_width(len(present), level) * float(present.std(ddof=1))


def _shares(present: np.ndarray, margin: float) -> Shares:
    if not len(present):
        return Shares(None, None, None, None)
    tests = (present > margin + TIE, present < margin - TIE, present > TIE, present < -TIE)
    return Shares(*(float(test.mean()) for test in tests))

"""Student t intervals over paired differences, and what such an interval says about a margin."""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from closerlook.errors import UsageError

Answer = Literal["yes", "no", "open", "left out"]  # left out: an arm was not admitted

LEVEL = 0.90  # two-sided: 5 % on each side
TIE = 1e-12  # closer than this to a margin is on it: subtracting rounded numbers must not decide anything
FEWEST = 3  # seeds below which there are numbers and no answer
SETTLED = 5  # seeds below which a verdict is provisional, and an all-or-nothing outcome stays open


@lru_cache(maxsize=256)
def half_width(n: int, level: float = LEVEL) -> float:
    """Half-width of the interval of a mean over `n` seeds, in standard deviations of the differences.

    ``t(n - 1 degrees of freedom, (1 + level) / 2) / sqrt(n)``: 1.69, 0.95 and 0.67 for 3, 5 and 8 seeds at 90 %.

    Raises
    ------
    UsageError
        Fewer than two seeds, or a level that is not between 0 and 1.

    Examples
    --------
    >>> [round(half_width(n), 2) for n in (3, 5, 8)]
    [1.69, 0.95, 0.67]
    """
    if n < 2:
        raise UsageError(f"an interval needs at least 2 paired values, not {n}; run more seeds")
    if not 0 < level < 1:
        raise UsageError(f"a level is a share between 0 and 1, not {level}; 90 % is 0.9")
    return float(stats.t.ppf((1 + level) / 2, n - 1) / np.sqrt(n))


def t_interval(differences: ArrayLike, level: float = LEVEL) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two-sided Student t interval of the mean over the last axis, in the unit of the differences.

    ``mean -+ half_width(n, level) * standard deviation (n - 1)``. Differences without any spread give an interval
    of no width.

    Parameters
    ----------
    differences
        One value per seed along the last axis; leading axes are independent studies.
    level
        Coverage of the interval.

    Raises
    ------
    UsageError
        Fewer than two seeds, or a level that is not between 0 and 1.

    Examples
    --------
    >>> low, high = t_interval([0.1, 0.2, 0.3])
    >>> round(float(low), 3), round(float(high), 3)
    (0.031, 0.369)
    """
    values = np.atleast_1d(np.asarray(differences, dtype=np.float64))
    reach = half_width(values.shape[-1], level) * values.std(axis=-1, ddof=1)
    mean = values.mean(axis=-1)
    return mean - reach, mean + reach


def spread(values: ArrayLike, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean of the values that are known and the ends of its Student t interval; NaN for what too few give.

    Examples
    --------
    >>> [round(number, 2) for number in spread([0.3, 0.5, float("nan")])], spread([0.3])[0]
    ([0.4, -0.23, 1.03], 0.3)
    """
    every = np.asarray(values, dtype=np.float64)
    known = every[np.isfinite(every)]
    mean = float(known.mean()) if len(known) else np.nan
    low, high = t_interval(known, level) if len(known) > 1 else (np.nan, np.nan)
    return mean, float(low), float(high)


def sides(differences: ArrayLike, margin: float, level: float = LEVEL) -> NDArray[np.int8]:
    """Side of `margin` on which the whole interval lies: 1 above, -1 below, 0 where it touches it.

    Equal differences are the mark of an outcome that is all or nothing, where no spread warns of the other outcome:
    with fewer than five seeds they give 0.

    Parameters
    ----------
    differences
        One value per seed along the last axis; leading axes are independent studies.
    margin
        Smallest effect that matters, in the unit of the differences.
    level
        Coverage of the interval.

    Examples
    --------
    >>> sides([[0.2, 0.3, 0.4], [-0.1, 0.0, 0.1], [0.2, 0.2, 0.2]], margin=0.1).tolist()
    [1, 0, 0]
    """
    low, high = t_interval(differences, level)
    above = low > margin + TIE
    below = high < margin - TIE
    equal = high - low <= TIE if np.shape(differences)[-1] < SETTLED else False
    return np.where(equal, 0, above.astype(np.int8) - below.astype(np.int8)).astype(np.int8)


def in_words(side: int) -> Answer:
    """Answer that belongs to a side: 1 is "yes", -1 is "no", 0 is "open"."""
    return "yes" if side > 0 else "no" if side < 0 else "open"

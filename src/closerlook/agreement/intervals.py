"""Intervals of quantities that are functions of sums over examples; they are over images, never over seeds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Array = NDArray[np.float64]
Sums = Mapping[str, Array]


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its interval over examples; NaN where it is not defined."""

    value: float
    low: float
    high: float


def wilson(hits: float, n: float, level: float) -> Estimate:
    """A share ``hits / n`` with Wilson's interval, which is not a point at 0 hits or at n.

    Source: Wilson 1927, Journal of the American Statistical Association 22.

    Examples
    --------
    >>> wilson(0, 100, 0.95)
    Estimate(value=0.0, low=0.0, high=0.0369...)
    """
    if n == 0:
        return Estimate(float("nan"), 0.0, 1.0)
    z = float(ndtri((1 + level) / 2))
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    # At the ends the formula gives the end itself, but for rounding.
    low, high = 0.0 if hits == 0 else middle - reach, 1.0 if hits == n else middle + reach
    return Estimate(share, low, high)


def jackknife(
    columns: Mapping[str, Array], of: Callable[[Sums], Mapping[str, Array]], level: float
) -> dict[str, Estimate]:
    """Quantities of sums over n examples, with intervals by leaving out one example at a time and Student's t.

    The squared standard error is ``(n - 1) / n sum_i (q_-i - mean)^2``: for a mean it is that of normal theory.

    Parameters
    ----------
    columns
        Values by example, [n, ...] each.
    of
        Quantities from sums, whose first axes may be any.

    Examples
    --------
    >>> found = jackknife({"x": np.array([1.0, 2.0, 6.0])}, lambda sums: {"x": sums["x"]}, 0.95)
    >>> found["x"].value
    9.0

    Source: Efron and Stein 1981, Annals of Statistics 9.
    """
    n = len(next(iter(columns.values())))
    total = {name: values.sum(0) for name, values in columns.items()}
    whole = of(total)
    left = of({name: total[name] - values for name, values in columns.items()}) if n > 1 else {}
    t = float(stdtrit(n - 1, (1 + level) / 2)) if n > 1 else float("nan")
    found = {}
    for name, value in whole.items():
        reach = t * float(np.sqrt((n - 1) * np.var(left[name]))) if n > 1 and np.isfinite(value) else float("nan")
        found[name] = Estimate(float(value), float(value) - reach, float(value) + reach)
    return found

"""The exact error of one part whose outcomes are all or nothing, where a t interval promises least."""

from math import comb

import numpy as np

from closerlook.evidence.paired import LEVEL, sides

_GRID = 2001  # shares of seeds that differ; the rate is smooth in them


def worst_rate(n: int, margin: float = 0.0, level: float = LEVEL) -> float:
    """Largest probability of a wrong "yes" over all truths at the margin, by enumeration.

    Each run has the whole outcome or none of it, so that a difference is -1, 0 or 1 (in units of the outcome), with
    probabilities whose mean is the margin: ``P(1) - P(-1) = margin``. The rate of a wrong "no" is that of a wrong
    "yes" at ``-margin``.

    Parameters
    ----------
    n
        Number of seeds.
    margin
        Margin over the size of the outcome, between -1 and 1.
    level
        Coverage of the interval.

    Examples
    --------
    >>> [round(worst_rate(n), 3) for n in (3, 5)]
    [0.0, 0.066]
    """
    up = np.linspace(max(margin, 0.0), (1 + margin) / 2, _GRID)
    down, same = up - margin, 1 - 2 * up + margin
    total = np.zeros(_GRID)
    for ups, downs, ways in _saying_yes(n, margin, level):
        total += ways * up**ups * down**downs * same.clip(0) ** (n - ups - downs)
    return float(total.max())


def _saying_yes(n: int, margin: float, level: float) -> list[tuple[int, int, int]]:
    """Numbers of seeds that are up and down for which the part says yes, and in how many orders they come."""
    found = []
    for ups in range(n + 1):
        for downs in range(n + 1 - ups):
            differences = np.repeat([1.0, -1.0, 0.0], [ups, downs, n - ups - downs])
            if sides(differences, margin, level) > 0:
                found.append((ups, downs, comb(n, ups) * comb(n - ups, downs)))
    return found

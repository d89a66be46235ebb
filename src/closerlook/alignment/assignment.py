"""The best order of units for a table of scores, exactly."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Scores = NDArray[np.float64]


def best_order(scores: Scores, blocks: Sequence[int] = ()) -> NDArray[np.intp]:
    """The order p of n units that maximises ``sum_i scores[i, p_i]`` over all permutations.

    Runs of the sizes in `blocks` (each a divisor of the next) move as wholes: the best order inside every pair of runs
    is found first, then the best order of the runs for those sums, which is exact as well.

    Examples
    --------
    >>> best_order(np.array([[0.0, 2.0], [1.0, 0.0]]))
    array([1, 0])

    References
    ----------
    Crouse 2016, On implementing 2D rectangular assignment algorithms, in scipy.optimize.linear_sum_assignment.
    """
    if not blocks:
        return np.asarray(linear_sum_assignment(scores, maximize=True)[1])
    *smaller, size = blocks
    count = len(scores) // size
    inner = np.empty((count, count, size), dtype=np.intp)
    sums = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            table = scores[i * size : (i + 1) * size, j * size : (j + 1) * size]
            inner[i, j] = best_order(table, smaller)
            sums[i, j] = table[np.arange(size), inner[i, j]].sum()
    outer = best_order(sums)
    return (outer[:, None] * size + inner[np.arange(count), outer]).reshape(-1)

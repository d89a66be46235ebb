"""Intervals of means over examples that hold for many contrasts at once.

All points of a path are read on the same examples, so a difference of two points is a paired one, and the correlation
of all contrasts is known: their joint interval is far narrower than one that takes them for unrelated.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]
_DRAWS = 20_000


def critical(covariance: Array, contrasts: Array, level: float, seed: int = 0) -> float:
    """The factor c for which all ``estimate ± c se`` hold at once with probability `level`.

    The largest of |z_1|, ..., |z_k| for normal z with the correlation of the contrasts (Hothorn, Bretz and Westfall
    2008, Biometrical Journal 50), from seeded draws, never above Bonferroni's factor. Contrasts without variance count
    for nothing.

    Parameters
    ----------
    covariance
        Of one example's values at the points [m, m].
    contrasts
        Rows of weights [k, m].

    Examples
    --------
    >>> round(critical(np.eye(2), np.array([[1.0, -1.0]]), level=0.95), 2)
    1.96
    """
    spread = np.einsum("ki,ij,kj->k", contrasts, covariance, contrasts)
    # What is left of a difference of equal rows is rounding, not variance.
    real = spread > 1e-24 * max(float(np.trace(covariance)), 1e-300)
    if not real.any() or not np.isfinite(spread).all():
        return float(ndtri((1 + level) / 2))
    rows = contrasts[real] / np.sqrt(spread[real])[:, None]
    bonferroni = float(ndtri(1 - (1 - level) / (2 * len(rows))))
    if len(rows) == 1:
        return bonferroni
    values, vectors = np.linalg.eigh(covariance)
    # Directions of the path without variance decide nothing; single precision is ample for a quantile of draws.
    real_directions = values > 1e-9 * values[-1]
    root = (rows @ (vectors[:, real_directions] * np.sqrt(values[real_directions]))).astype(np.float32).T
    normal = np.random.default_rng(seed)
    draws = (normal.standard_normal((500, len(root)), dtype=np.float32) for _ in range(_DRAWS // 500))
    largest = [_largest(draw @ root) for draw in draws]
    return min(bonferroni, float(np.quantile(np.concatenate(largest), level)))


def _largest(z: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(z.max(1), -z.min(1))


def pairs(m: int) -> Array:
    """The contrasts of all pairs of m points [m (m - 1) / 2, m]."""
    first, second = np.triu_indices(m, 1)
    rows = np.zeros((len(first), m))
    rows[np.arange(len(first)), first], rows[np.arange(len(first)), second] = -1.0, 1.0
    return rows


def standard_error(values: Array, population: int | None = None) -> float:
    """Standard error of a mean of values [n]; drawn without replacement from a `population` where one is given.

    Examples
    --------
    >>> standard_error(np.array([0.0, 1.0, 2.0]), population=3)
    0.0
    """
    n = len(values)
    if n == population:
        return 0.0
    if n < 2:
        return float("inf")
    left = 1.0 if population is None else 1 - n / population
    return float(np.std(values, ddof=1) * np.sqrt(left / n))

"""The nearest point of a span or a curve, from inner products alone.

`inner` [K, K] holds the inner products, in float64, of p_1 - p_0, ..., p_{K-1} - p_0, w - p_0.
"""

from itertools import pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def nearest_on_span(inner: Array) -> Array:
    """Weights of p_i - p_0 of the nearest point of the affine span."""
    weights: Array = np.linalg.lstsq(inner[:-1, :-1], inner[:-1, -1], rcond=None)[0].astype(np.float64)
    return weights


def nearest_on_chain(inner: Array) -> Array:
    """The parameter t [1] of the nearest point of a polygonal chain."""
    count = len(inner)
    corners = np.vstack([np.zeros(count), np.eye(count)[:-1]])  # rows: p_i - p_0 in terms of the inner products
    target = np.eye(count)[-1]
    best = (np.inf, 0.0)
    for i, (a, b) in enumerate(pairwise(corners)):
        step, reach = b - a, target - a
        squared = step @ inner @ step
        share = 0.0 if squared == 0 else float(np.clip(step @ inner @ reach / squared, 0, 1))
        rest = reach - share * step
        best = min(best, (float(rest @ inner @ rest), (i + share) / (count - 1)))
    return np.array([best[1]])


def nearest_on_bezier(inner: Array, count: int) -> Array:
    """The parameter t [1] of the nearest point of a Bezier curve: the best root of the derivative of its distance."""
    polynomials = np.array([_bernstein(count - 1, i) for i in range(count)][1:])  # [K - 1, degree + 1], ascending
    points, cross = inner[:-1, :-1], inner[:-1, -1]
    squared = np.zeros(2 * count - 1)
    for i, a in enumerate(polynomials):
        squared[: len(a)] -= 2 * cross[i] * a
        for j, b in enumerate(polynomials):
            squared += points[i, j] * np.convolve(a, b)
    distance = np.polynomial.Polynomial(squared)
    roots = distance.deriv().roots()
    real = roots.real[np.abs(roots.imag) < 1e-7]
    candidates = np.concatenate([[0.0, 1.0], real[(real > 0) & (real < 1)]])
    return np.array([candidates[np.argmin(distance(candidates))]])


def _bernstein(n: int, i: int) -> Array:
    """Coefficients, ascending in t, of C(n, i) t^i (1 - t)^(n - i)."""
    rest = [comb(n - i, k) * (-1.0) ** k for k in range(n - i + 1)]
    return comb(n, i) * np.concatenate([np.zeros(i), rest])

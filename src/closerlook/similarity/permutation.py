"""Permutation tests: the examples of y are paired at random with those of x, all of them at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from closerlook.errors import UsageError
from closerlook.similarity.cca import usable
from closerlook.similarity.measures import measure as named
from closerlook.similarity.moments import Moments
from closerlook.similarity.pair import Pair
from closerlook.similarity.result import Similarity
from closerlook.similarity.stream import Rows

Array = NDArray[np.float64]
TIE = 1e-10  # values this close are equal up to rounding


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """The observed similarity, those of random pairings, and the share of all these pairings that are as high.

    `p_value` is NaN where the similarity is: a side that does not vary has nothing to test.
    """

    observed: Similarity
    null: Array
    p_value: float


def permutation_test(
    x: Rows,
    y: Rows,
    measure: str | Callable[[Pair], Similarity] = "cka",
    *,
    permutations: int = 999,
    seed: int = 0,
) -> PermutationTest:
    """Whether x [n, p] and y [n, q] are more similar than with their examples paired at random.

    Each permutation is one of all rows, never within batches: that would keep the classes of class-ordered data in
    place. Own moments do not change, so each costs one product x'y and the measure. Rows must be independent: those
    that are positions of one image or tokens of one text are not.

    Parameters
    ----------
    x, y : examples [n, p] and [n, q], such as the rows of `closerlook.activations`.
    measure : a name such as ``"svcca:20,r2"``, or a function of a pair.

    Raises
    ------
    UsageError
        As `Moments` and the measure.

    Examples
    --------
    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> permutation_test(x, 2 * x, permutations=99).p_value
    0.01
    """
    pair, left, right = _centred(x, y, permutations)
    norms_x, norms_y = left.square().sum(1), right.square().sum(1)
    read = named(measure) if isinstance(measure, str) else measure
    observed = read(pair)
    null = []
    for order in _orders(pair.n, permutations, seed):
        cross, joint = left.T @ right[order], float(norms_x @ norms_y[order])
        null.append(read(replace(pair, cross=cross, joint=joint)).value)
    return PermutationTest(observed, np.array(null), _share(np.array(null), observed.value))


@dataclass(frozen=True, eq=False)
class StepwiseTest:
    """Canonical correlations, largest first, and the p-values of the first of them, corrected for their number."""

    rho: Array
    p_values: Array


def cca_permutation_test(
    x: Rows, y: Rows, *, most: int = 10, permutations: int = 999, seed: int = 0, insist: bool = False
) -> StepwiseTest:
    """Which canonical correlations are above chance: stepwise, so that it holds beyond the first one.

    For coefficient k the canonical variates before it are taken out of both sides, the remaining ones (completed to
    bases of both sides) are paired at random, and ``-sum_{i >= k} log(1 - rho_i^2)`` (Wilks) is compared with that of
    the observed pairing. p-values are the running maximum, so that they hold for all coefficients together.

    Parameters
    ----------
    x, y : examples [n, p] and [n, q].
    most : how many coefficients are tested.

    Raises
    ------
    TooFewExamplesError, ConditionError
        As `cca`.

    References
    ----------
    Winkler, Renaud, Smith, Nichols 2020, NeuroImage 220, 117065, algorithm 1.

    Examples
    --------
    >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> cca_permutation_test(x, x[:, :1] + 3, permutations=99).p_values
    array([0.01])
    """
    pair, left, right = _centred(x, y, permutations)
    usable(pair, insist)
    u, rho, v = torch.linalg.svd(pair.whitened)
    left, right = left @ pair.left.whitening.directions(u), right @ pair.right.whitening.directions(v.mH)
    steps = range(min(most, len(rho)))
    observed = np.array([_wilks(rho[k:].clamp_max(1.0)) for k in steps])
    null = np.array([
        _tails(left.T @ right[order], len(steps)) for order in _orders(pair.n, permutations, seed)
    ])  # fmt: skip
    shares = np.array([_share(null[:, k], observed[k]) for k in steps])
    return StepwiseTest(rho.clamp_max(1.0).numpy(), np.maximum.accumulate(shares))


def _tails(block: Tensor, steps: int) -> list[float]:
    """The statistic of the variates from k on, for each k, from their inner products under one pairing."""
    return [_wilks(torch.linalg.svdvals(block[k:, k:]).clamp_max(1.0)) for k in range(steps)]


def _wilks(rho: Tensor) -> float:
    return -float(torch.log1p(-rho.square()).sum())


def _share(null: Array, observed: float) -> float:
    """Share of pairings at least as high; the observed one is one of them."""
    if np.isnan(observed):
        return float("nan")
    lowest = observed - TIE * abs(observed) if np.isfinite(observed) else observed  # infinite at a correlation of 1
    return (1 + int((null >= lowest).sum())) / (1 + len(null))


def _orders(n: int, permutations: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randperm(n, generator=generator) for _ in range(permutations))


def _centred(x: Rows, y: Rows, permutations: int) -> tuple[Pair, Tensor, Tensor]:
    """The moments and the centred examples in float64."""
    if permutations < 1:
        raise UsageError("a permutation test needs permutations; 999 give p-values down to 0.001")
    moments = Moments()
    moments.update(x, y)
    pair = moments.pair()
    left, right = (torch.as_tensor(rows).detach().cpu().double() for rows in (x, y))
    return pair, left - pair.left.mean, right - pair.right.mean

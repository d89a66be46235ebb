"""Canonical correlations of two representations (Hotelling 1936; Raghu et al. 2017, arXiv 1706.05806)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from closerlook.errors import ConditionError, TooFewExamplesError, UsageError
from closerlook.similarity import chance
from closerlook.similarity.moments import Moments
from closerlook.similarity.pair import Pair
from closerlook.similarity.refined import refined
from closerlook.similarity.result import Similarity
from closerlook.similarity.stream import Rows
from closerlook.similarity.whitening import RESOLVED

Summary = Literal["mean", "r2"]
Denominator = Literal["min_rank", "min_width", "width_x"]
ENOUGH = 5  # examples per direction


def cca(
    m: Moments | Pair,
    *,
    summary: Summary = "mean",
    denominator: Denominator = "min_rank",
    coefficients: bool = True,
    insist: bool = False,
    seed: int = 0,
    again: Iterable[tuple[Rows, Rows]] | None = None,
) -> Similarity:
    """Canonical correlation: how much of each representation is a linear map of the other.

    ``rho = singular values of Q_x' Q_y``, Q orthonormal bases of the centred columns; the value is their sum
    (``"mean"``) or the sum of their squares (``"r2"``) over the denominator. Invariant to translation and to every
    invertible linear map of either side.

    Parameters
    ----------
    m : the moments, or one pair of a grid.
    summary : what the value is, the mean of rho or of rho squared; the latter has an exact chance level.
    denominator : the smaller rank, the smaller width, or the width of x.
    coefficients : False leaves rho out of an ``"r2"``, which then needs no singular values.
    insist : accept fewer than 5 examples per direction; the notes say so.
    seed : of the simulated chance level of ``"mean"``.
    again : the same examples once more, in batches (x, y): a second pass over whitened examples, which holds where the
        sums of the first do not (condition above 1e6).

    Raises
    ------
    TooFewExamplesError
        r_x + r_y > n - 1 (then rho = 1 by counting alone), or n < 5 max(r_x, r_y) unless `insist`.
    ConditionError
        A side's condition is above 1e6, beyond what float64 sums resolve, and there is no second pass.

    Examples
    --------
    >>> x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    >>> moments = Moments()
    >>> moments.update(x, x[:, [3, 1]] * 5 - 2)
    >>> result = cca(moments)
    >>> round(result.value, 6), result.ranks, result.chance < 0.1
    (1.0, (4, 2), True)
    """
    pair = pair_of(m)
    if summary not in ("mean", "r2"):
        raise UsageError(f"unknown summary {summary!r}; choose mean or r2")
    count = _denominator(pair, denominator)
    notes = usable(pair, insist) if again is None else enough(pair.n, pair.ranks, insist)
    fewest = min(pair.ranks)
    if not fewest:
        return Similarity("cca", **nothing(pair), conventions={"summary": summary, "denominator": denominator})
    scale, carried = fewest / count, facts(pair)
    if again is not None:
        pair, notes = refined(pair, again), (*notes, "two passes")
    if summary == "r2" and not coefficients:
        rho, value = torch.empty(0), float(pair.whitened.square().sum()) / count
    else:
        rho = pair.correlations
        value = float((rho if summary == "mean" else rho.square()).sum()) / count
    return Similarity(
        "cca", value, correlation_chance(summary, pair.ranks, pair.n, seed, scale), coefficients=rho.numpy(),
        conventions={"summary": summary, "denominator": denominator}, notes=notes, **carried,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Directions:
    """Canonical directions: ``(X - mean) x`` and ``(Y - mean) y`` have unit length columns with correlations `rho`."""

    x: Tensor
    y: Tensor
    rho: Tensor


def directions(m: Moments | Pair, *, insist: bool = False) -> Directions:
    """Canonical directions x [p, k], y [q, k] in the units, k = min rank; dropped units get 0.

    Examples
    --------
    >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> moments = Moments()
    >>> moments.update(x, x)
    >>> directions(moments).x.shape
    torch.Size([2, 2])
    """
    pair = pair_of(m)
    usable(pair, insist)
    u, rho, v = pair.canonical
    return Directions(pair.left.whitening.directions(u), pair.right.whitening.directions(v.mH), rho)


def pair_of(m: Moments | Pair) -> Pair:
    """The pair that a measure reads.

    Raises
    ------
    UsageError
        It is something else, such as a grid or the examples themselves.
    """
    if isinstance(m, Pair):
        return m
    if not isinstance(m, Moments):
        raise UsageError(
            f"measures read Moments (moments.update(x, y)) or a pair of a grid (grid.pair(a, b)), not a "
            f"{type(m).__name__}; maps have spectral_cca"
        )
    return m.pair()


def facts(pair: Pair) -> dict[str, Any]:
    """What every result of the whitened measures carries."""
    left, right = pair.left.whitening, pair.right.whitening
    return {
        "n": pair.n, "ranks": pair.ranks, "dropped": (left.dropped, right.dropped),
        "condition": (left.condition, right.condition),
    }  # fmt: skip


def nothing(pair: Pair) -> dict[str, Any]:
    """The result when a side does not vary at all."""
    side = " and ".join(layer.name for layer in (pair.left, pair.right) if not layer.whitening.rank)
    undefined = chance.exact(float("nan"), "undefined")
    return {"value": float("nan"), "null": undefined, "notes": (f"{side} does not vary: rank 0",), **facts(pair)}


def usable(pair: Pair, insist: bool) -> tuple[str, ...]:
    """Notes on what is still usable; raises on what is not."""
    for layer in (pair.left, pair.right):
        if layer.whitening.condition > RESOLVED:
            raise ConditionError(
                f"{layer.name} has condition {layer.whitening.condition:.1e} at unit variance and float64 sums resolve "
                f"{RESOLVED:.0e}; drop the weakest directions (cut=10 for the moments), or give cca the examples "
                "again for a second pass"
            )
    return enough(pair.n, pair.ranks, insist)


def enough(n: int, ranks: tuple[int, int], insist: bool) -> tuple[str, ...]:
    """A note when there are few examples for these ranks; raises when there are too few."""
    both, most = sum(ranks), max(ranks)
    if both > n - 1 and min(ranks):
        raise TooFewExamplesError(
            f"{n} examples cannot tell {ranks[0]} and {ranks[1]} directions apart: above n - 1 together some correlate "
            f"perfectly whatever they are; take more than {both + 1} examples, or fewer directions (svcca, pooling)"
        )
    if n >= ENOUGH * most:
        return ()
    if not insist:
        raise TooFewExamplesError(
            f"{n} examples for {most} directions is less than {ENOUGH} each, so chance is high "
            f"(mean squared correlation {chance.squared_correlation(*ranks, n):.2f}); take {ENOUGH * most} examples, "
            "fewer directions (svcca, pooling), or insist=True"
        )
    return (f"insisted: {n} examples for {most} directions is less than {ENOUGH} each",)


def correlation_chance(
    summary: Summary, ranks: tuple[int, int], n: int, seed: int, scale: float = 1.0, beta: int = 1
) -> chance.Chance:
    """Chance level of a summary of rho."""
    if summary == "mean":
        return chance.mean_correlation(*ranks, n, seed, scale, beta)
    return chance.exact(scale * chance.squared_correlation(*ranks, n), "exact: max(r_x, r_y) / (n - 1)")


def _denominator(pair: Pair, name: Denominator) -> int:
    known = {
        "min_rank": min(pair.ranks),
        "min_width": min(pair.left.width, pair.right.width),
        "width_x": pair.left.width,
    }
    if name not in known:
        raise UsageError(f"unknown denominator {name!r}; choose one of {', '.join(known)}")
    return known[name]

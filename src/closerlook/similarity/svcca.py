"""Canonical correlation of the leading principal directions (Raghu et al. 2017, arXiv 1706.05806)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from closerlook.errors import ConditionError, UsageError
from closerlook.similarity import chance
from closerlook.similarity.cca import Summary, correlation_chance, enough, facts, nothing, pair_of
from closerlook.similarity.moments import Moments
from closerlook.similarity.pair import Layer, Pair
from closerlook.similarity.result import Similarity
from closerlook.similarity.whitening import RESOLVED, singular_values

Array = NDArray[np.float64]


def svcca(
    m: Moments | Pair,
    *,
    variance: float = 0.99,
    directions: int | tuple[int, int] | None = None,
    summary: Summary = "mean",
    insist: bool = False,
    seed: int = 0,
) -> Similarity:
    """Canonical correlation of the principal directions that hold a share of each side's variance.

    Each side keeps the smallest k with ``sum_{i<=k} sigma_i^2 >= variance sum_i sigma_i^2`` of its centred units, or
    the number of `directions` (one for both sides, or one each); then `cca`. Invariant to translation, orthogonal maps
    and scaling as a whole. `condition` is sigma_1 / sigma_k of the units as they are: what sums lose is eps times its
    square.

    Raises
    ------
    TooFewExamplesError
        As `cca`, for the directions kept.
    ConditionError
        A direction kept is less than a millionth of the first, which sums in float64 do not resolve.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 9, 9, 0.01])
    >>> moments = Moments()
    >>> moments.update(x, x[:, :3] + 7)
    >>> result = svcca(moments)
    >>> round(result.value, 6), result.ranks
    (1.0, (3, 3))
    """
    pair = pair_of(m)
    if not 0 < variance <= 1:
        raise UsageError(f"variance is a share in (0, 1], not {variance}")
    asked: dict[str, Any] = {"summary": summary}
    asked |= {"variance": variance} if directions is None else {"directions": directions}
    if not min(pair.ranks):
        return Similarity("svcca", **nothing(pair), conventions=asked)
    kept = (directions, directions) if isinstance(directions, int) else directions
    k = kept or (_holding(pair.left, variance), _holding(pair.right, variance))
    for layer, count, rank in zip((pair.left, pair.right), k, pair.ranks, strict=True):
        if not 0 < count <= rank:
            raise UsageError(f"{layer.name} has {rank} directions, not {count}; ask for at most {min(pair.ranks)}")
        _refuse_unresolved(layer, count)
    notes = enough(pair.n, k, insist)
    rho = singular_values(_principal_block(pair, *k)).clamp_max(1.0)
    value = float((rho if summary == "mean" else rho.square()).mean())
    return Similarity(
        "svcca", value, correlation_chance(summary, k, pair.n, seed), coefficients=rho.numpy(), conventions=asked,
        notes=notes, **(facts(pair) | {"ranks": k, "condition": (_spread(pair.left, k[0]), _spread(pair.right, k[1]))}),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class SvccaCurve:
    """Mean squared correlation with k = 1, 2, ... directions of each side, mean rho on a grid of k, their chance."""

    r2: Array
    r2_chance: Array
    grid: Array
    mean: Array
    mean_chance: Array
    shares_x: Array
    shares_y: Array


def svcca_curve(m: Moments | Pair, grid: Sequence[int] | None = None, *, seed: int = 0) -> SvccaCurve:
    """SVCCA as a function of the number of directions kept of each side.

    In whitened principal coordinates every truncation is a leading block of one matrix, so r2 for every k is a
    cumulative sum; the mean rho needs the singular values of each block, so it is on `grid` (default: up to 16 values
    of k in equal ratios). Stops at the smaller rank, where 2 k > n - 1, and before directions of less than a millionth
    of the first, which sums in float64 do not resolve.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    >>> moments = Moments()
    >>> moments.update(x, x)
    >>> svcca_curve(moments).r2.round(6)
    array([1., 1., 1., 1.])
    """
    pair = pair_of(m)
    most = min(_resolved(pair.left), _resolved(pair.right), (pair.n - 1) // 2)
    ks = np.arange(1, most + 1)
    if grid is None:
        grid = sorted(set(np.geomspace(1, most, 16).round().astype(int).tolist())) if most else []
    if any(not 0 < k <= most for k in grid):
        raise UsageError(f"grid is made of numbers of directions from 1 to {most}")
    block = _principal_block(pair, most, most)
    total = block.square().cumsum(0).cumsum(1).diagonal().numpy()
    levels = [chance.mean_correlation(k, k, pair.n, seed).value for k in grid]
    return SvccaCurve(
        r2=total / ks, r2_chance=ks / (pair.n - 1), grid=np.array(grid), mean_chance=np.array(levels),
        mean=np.array([float(singular_values(block[:k, :k]).mean()) for k in grid]),
        shares_x=_shares(pair.left)[:most], shares_y=_shares(pair.right)[:most],
    )  # fmt: skip


def _shares(layer: Layer) -> Array:
    """Share of the variance that the first 1, 2, ... directions hold."""
    return (layer.principal[0].cumsum(0) / layer.total).numpy()


def _spread(layer: Layer, count: int) -> float:
    """Length of the first principal direction over that of direction `count`."""
    values = layer.principal[0]
    return float((values[0] / values[count - 1]).sqrt())


def _resolved(layer: Layer) -> int:
    """Number of directions that sums in float64 tell from their own rounding."""
    values = layer.principal[0]
    return int((values * RESOLVED**2 > values[:1]).sum())


def _refuse_unresolved(layer: Layer, count: int) -> None:
    if count > _resolved(layer):
        raise ConditionError(
            f"direction {count} of {layer.name} is {1 / _spread(layer, count):.0e} of its first one, and float64 sums "
            f"resolve {1 / RESOLVED:.0e}; ask for at most {_resolved(layer)} directions"
        )


def _holding(layer: Layer, variance: float) -> int:
    """Smallest number of directions that hold a share of the variance."""
    shares = _shares(layer)
    return min(int(np.searchsorted(shares, variance - 1e-12)) + 1, len(shares))


def _principal_block(pair: Pair, k_x: int, k_y: int) -> Tensor:
    """Inner products [k_x, k_y] of the normalised leading principal components of both sides."""
    (values_x, vectors_x), (values_y, vectors_y) = pair.left.principal, pair.right.principal
    block = vectors_x[:, :k_x].T @ pair.cross @ vectors_y[:, :k_y]
    return block / values_x[:k_x].sqrt()[:, None] / values_y[:k_y].sqrt()

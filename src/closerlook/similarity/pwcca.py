"""Projection-weighted canonical correlation (Morcos et al. 2018, arXiv 1806.05759, equation 6)."""

from typing import Literal

from torch import Tensor

from closerlook.errors import UsageError
from closerlook.similarity.cca import correlation_chance, facts, nothing, pair_of, usable
from closerlook.similarity.moments import Moments
from closerlook.similarity.pair import Layer, Pair
from closerlook.similarity.result import Similarity

Side = Literal["x", "y", "mean"]


def pwcca(m: Moments | Pair, *, side: Side = "x", insist: bool = False, seed: int = 0) -> Similarity:
    """Mean canonical correlation, weighted by how much of one side each canonical direction accounts for.

    ``sum_i alpha_i rho_i / sum_i alpha_i`` with ``alpha_i = sum_j |<h_i, x_j>|``, h_i the canonical variates of the
    side with length 1, x_j its centred units. Not symmetric: `side` says whose units weigh; ``"mean"`` averages both.
    Invariant to translation, to scaling as a whole, and to invertible linear maps of the other side only.

    At chance the weights do not depend on rho, so that the chance level is that of the mean rho.

    Raises
    ------
    TooFewExamplesError, ConditionError
        As `cca`.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    >>> moments = Moments()
    >>> moments.update(x, x[:, :2])
    >>> round(float(pwcca(moments, side="y")), 6)
    1.0
    """
    pair = pair_of(m)
    if side not in ("x", "y", "mean"):
        raise UsageError(f"unknown side {side!r}; choose x, y or mean")
    notes = usable(pair, insist)
    if not min(pair.ranks):
        return Similarity("pwcca", **nothing(pair), conventions={"side": side})
    u, rho, v = pair.canonical
    alpha = {"x": _weights(u, pair.left), "y": _weights(v.mH, pair.right)}
    value = {name: float(weights @ rho) for name, weights in alpha.items()}
    value["mean"] = (value["x"] + value["y"]) / 2
    return Similarity(
        "pwcca", value[side], correlation_chance("mean", pair.ranks, pair.n, seed), coefficients=rho.numpy(),
        conventions={"side": side}, notes=notes, **facts(pair),
        details={f"weights_{name}": weights.numpy() for name, weights in alpha.items() if side in (name, "mean")},
    )  # fmt: skip


def _weights(basis: Tensor, layer: Layer) -> Tensor:
    """Shares [k] of the canonical directions: the sums over units of |inner product with a unit|."""
    alpha = (basis.mH @ layer.whitening.coordinates()).abs().sum(1)
    return alpha / alpha.sum()

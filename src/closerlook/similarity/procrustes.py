"""Orthogonal Procrustes: how well a rotation maps one representation on the other (Ding et al. 2021, 2108.01661)."""

from math import acos, sqrt

from closerlook.similarity import chance
from closerlook.similarity.cca import facts, nothing, pair_of
from closerlook.similarity.moments import Moments
from closerlook.similarity.pair import Pair
from closerlook.similarity.result import Similarity


def procrustes(m: Moments | Pair, *, seed: int = 0) -> Similarity:
    """Procrustes similarity: the nuclear norm ``|X'Y|_* / (|X|_F |Y|_F)`` of the cross covariance.

    For centred X, Y of norm 1, ``min_R |X R - Y|_F^2 = 2 - 2 |X'Y|_*``: `details` has this squared distance and the
    angle ``arccos |X'Y|_*``, which is a metric. Invariant to translation, orthogonal maps and scaling as a whole. The
    chance level is simulated from both spectra.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    >>> moments = Moments()
    >>> moments.update(x, 3 * x.flip(1) + 1)
    >>> round(float(procrustes(moments)), 9)
    1.0
    """
    pair = pair_of(m)
    if not min(pair.ranks):
        return Similarity("procrustes", **nothing(pair))
    norms = sqrt(pair.left.total * pair.right.total)
    values = pair.singular_values / norms
    value = float(values.sum())
    null = chance.nuclear_norm(pair.left.spectrum, pair.right.spectrum, pair.n, seed)
    return Similarity(
        "procrustes", value, null, coefficients=values.numpy(),
        details={"squared_distance": 2 - 2 * value, "angle": acos(min(value, 1.0))}, **facts(pair),
    )  # fmt: skip

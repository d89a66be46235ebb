"""Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414), biased and debiased."""

from math import sqrt

from closerlook.errors import TooFewExamplesError
from closerlook.similarity import chance
from closerlook.similarity.cca import facts, nothing, pair_of
from closerlook.similarity.moments import Moments
from closerlook.similarity.pair import Pair
from closerlook.similarity.result import Similarity


def cka(m: Moments | Pair, *, debiased: bool = True) -> Similarity:
    """Linear CKA: the correlation of the inner products of examples in both representations.

    Biased: ``|X'Y|_F^2 / (|X'X|_F |Y'Y|_F)``. Debiased: every squared norm is replaced by the unbiased HSIC_1 (Song et
    al. 2012, JMLR 13, 1393, equation 5), so that chance is 0; it may be negative and is not clamped. From the sums
    of row norms it needs one pass and no Gram matrix. Invariant to translation, orthogonal maps and scaling as a whole.

    Raises
    ------
    TooFewExamplesError
        Debiased with fewer than 4 examples.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    >>> moments = Moments()
    >>> moments.update(x, 3 * x.flip(1) + 1)
    >>> round(float(cka(moments)), 9)
    1.0
    """
    pair = pair_of(m)
    if debiased and pair.n < 4:
        raise TooFewExamplesError(f"debiased CKA needs 4 examples, not {pair.n}")
    conventions = {"debiased": debiased}
    if not min(pair.ranks):
        return Similarity("cka", **nothing(pair), conventions=conventions)
    shared = float(pair.cross.square().sum())
    if not debiased:
        norms = pair.left.norm * pair.right.norm
        level = pair.left.total * pair.right.total / ((pair.n - 1) * norms)
        null = chance.exact(level, "exact: tr S_xx tr S_yy / ((n - 1) |S_xx| |S_yy|)")
        return Similarity("cka", shared / norms, null, conventions=conventions, **facts(pair))
    sides = (pair.left, pair.right)
    own = [_debiased(side.norm**2, side.squares, side.total, side.total, pair.n) for side in sides]
    notes = () if min(own) > 0 else ("the debiased norm of a side is not positive: too few examples",)
    both = _debiased(shared, pair.joint, pair.left.total, pair.right.total, pair.n)
    value = float("nan") if notes else both / sqrt(own[0] * own[1])
    return Similarity("cka", value, chance.exact(0.0, "exact: 0"), conventions=conventions, notes=notes, **facts(pair))


def _debiased(squared: float, joint: float, total_x: float, total_y: float, n: int) -> float:
    """HSIC_1 times n (n - 3), from the squared norm of X'Y and the sums of |x_i|^2 |y_i|^2, |x_i|^2, |y_i|^2."""
    return squared - n / (n - 2) * joint + total_x * total_y / ((n - 1) * (n - 2))

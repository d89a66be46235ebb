"""CKA with a Gaussian kernel (Kornblith et al. 2019, arXiv 1905.00414): the one measure that needs the examples."""

from math import sqrt

import torch
from torch import Tensor

from closerlook.errors import TooFewExamplesError, UsageError
from closerlook.similarity import chance
from closerlook.similarity.memory import refuse_above
from closerlook.similarity.moments import HINT
from closerlook.similarity.result import Similarity
from closerlook.similarity.stream import Rows, checked, same_length


def rbf_cka(
    x: Rows, y: Rows, *, bandwidth: float = 0.5, debiased: bool = True, max_bytes: int | None = None
) -> Similarity:
    """CKA of the kernels ``exp(-|a - b|^2 / (2 s^2))``, with s = `bandwidth` times the median distance of a side.

    Unlike the linear measures it takes matrices of all pairs of examples: 4 of n x n float64 numbers. Debiased: HSIC_1
    (Song et al. 2012), chance 0. Invariant to translation, orthogonal maps and scaling as a whole.

    Raises
    ------
    TooFewExamplesError
        Fewer than 4 examples.
    UsageError
        A shape, NaN, or too little memory.

    Examples
    --------
    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> round(float(rbf_cka(x, 2 * x + 1)), 9)
    1.0
    """
    if bandwidth <= 0:
        raise UsageError(f"bandwidth is a share of the median distance, above 0, not {bandwidth}")
    sides = {name: checked(name, rows, ("examples", "units"), HINT).double() for name, rows in (("x", x), ("y", y))}
    n = same_length(sides)
    if n < 4:
        raise TooFewExamplesError(f"rbf_cka needs 4 examples, not {n}")
    refuse_above(32 * n * n, max_bytes, f"the kernels of {n} examples", "take fewer examples")
    conventions = {"bandwidth": bandwidth, "debiased": debiased}
    k, other = (_centred_kernel(rows, bandwidth, debiased) for rows in sides.values())
    norms = sqrt(float(k.square().sum())) * sqrt(float(other.square().sum()))
    if not norms:
        still = tuple(f"{name} does not vary" for name, each in zip(sides, (k, other), strict=True) if not each.any())
        undefined = chance.exact(float("nan"), "undefined")
        return Similarity("rbf_cka", float("nan"), undefined, n, (0, 0), conventions=conventions, notes=still)
    level = 0.0 if debiased else float(k.trace() * other.trace()) / ((n - 1) * norms)
    null = chance.exact(level, "exact: 0" if debiased else "exact: tr K tr L / ((n - 1) |K| |L|)")
    value = float((k * other).sum()) / norms
    return Similarity("rbf_cka", value, null, n, (n - 1, n - 1), conventions=conventions)


def _centred_kernel(rows: Tensor, bandwidth: float, debiased: bool) -> Tensor:
    """The kernel [n, n] with its means taken out: those of all entries, or of the pairs of different examples."""
    kernel = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    apart = kernel[kernel > 0]
    if not len(apart):
        return torch.zeros_like(kernel)
    kernel.div_(bandwidth * apart.median()).square_().div_(-2).exp_()
    n = len(rows)
    if not debiased:
        return kernel.sub_(kernel.mean(0)).sub_(kernel.mean(1, keepdim=True))
    kernel.fill_diagonal_(0)
    sums, total = kernel.sum(0), kernel.sum() / ((n - 1) * (n - 2))
    return kernel.sub_(sums / (n - 2)).sub_(sums[:, None] / (n - 2)).add_(total).fill_diagonal_(0)

"""Whitening of a layer from its covariance at unit variance: Cholesky, or eigenvectors where that is not safe."""

from dataclasses import dataclass
from functools import cached_property

import scipy.linalg
import torch
from torch import Tensor

SAFE = 1e5  # up to this condition Cholesky needs no rank decision
RESOLVED = 1e6  # up to this condition sums in float64 hold: their error is about eps cond^2
VISIBLE = 2.0**-23  # singular values below this share of the largest drown in the rounding of the sums themselves
STEPS = 4
ROOM = 4.0  # by which the estimated condition may be too small
LARGE = 300  # from here on eigenvalues of the square are several times faster than singular values


@dataclass(frozen=True, eq=False)
class Whitening:
    """Maps a layer of `width` units to `rank` uncorrelated directions of length 1; real or complex.

    `scale` [live] are the lengths of the live units; `factor` is the Cholesky factor of their correlation matrix, or
    its eigenvectors times the roots of the eigenvalues. Then X = Q factor' scale with orthonormal Q [n, rank].
    """

    live: Tensor
    scale: Tensor
    factor: Tensor
    roots: Tensor | None
    condition: float

    @property
    def rank(self) -> int:
        """Number of directions."""
        return self.factor.shape[1]

    @cached_property
    def dropped(self) -> tuple[int, ...]:
        """Units that do not vary."""
        return tuple(torch.nonzero(~self.live)[:, 0].tolist())

    def __call__(self, block: Tensor) -> Tensor:
        """``Q'B`` [rank, k] for a block ``X'B`` [width, k]."""
        scaled = block[self.live] / self.scale[:, None]
        if self.roots is None:
            return torch.linalg.solve_triangular(self.factor, scaled, upper=False)
        return (self.factor.mH @ scaled) / self.roots.square()[:, None]

    def directions(self, basis: Tensor) -> Tensor:
        """Weights [width, k] of the units that give the directions ``Q basis``, for a basis [rank, k]."""
        found = torch.zeros(len(self.live), basis.shape[1], dtype=self.factor.dtype)
        if self.roots is None:
            found[self.live] = torch.linalg.solve_triangular(self.factor.mH, basis, upper=True) / self.scale[:, None]
        else:
            found[self.live] = (self.factor / self.roots.square()) @ basis / self.scale[:, None]
        return found

    def coordinates(self) -> Tensor:
        """``Q'X`` [rank, live]: the units in the whitened directions."""
        return self.factor.mH * self.scale


def whiten(own: Tensor, floor: Tensor, cut: float) -> Whitening:
    """The whitening of a centred ``X'X`` [p, p].

    `floor` [p] is the length that rounding alone gives to each unit. Units no longer than that are dropped, and so are
    directions no longer than rounding gives to them, or than `cut` of the longest, at unit variance.
    """
    lengths = own.diagonal().real.clamp_min(0).sqrt()
    live = lengths > floor
    scale = lengths[live]
    correlation = (own if bool(live.all()) else own[live][:, live]) / scale
    correlation /= scale[:, None]
    if not len(scale):
        return Whitening(live, scale, correlation, None, float("nan"))
    factor, failed = torch.linalg.cholesky_ex(correlation)
    condition = float("inf") if failed else condition_of(correlation, factor)
    noise = (floor[live] / scale).square()
    if condition <= SAFE and float(noise.max()) * condition**2 < 1 / ROOM:
        return Whitening(live, scale, factor, None, condition)
    values, vectors = eigenpairs(correlation)
    rounding = noise @ vectors.abs().square()
    kept = values > torch.maximum(rounding, values[-1] * max(cut, VISIBLE) ** 2)
    roots = values[kept].sqrt()
    return Whitening(live, scale, vectors[:, kept] * roots, roots, float(roots[-1] / roots[0]))


def condition_of(correlation: Tensor, factor: Tensor) -> float:
    """Condition number of the units at unit variance, to about a tenth, by a few steps of subspace iteration."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(correlation), 2, dtype=torch.float64, generator=generator).to(correlation.dtype)
    large, small = start / torch.linalg.vector_norm(start, dim=0), start / torch.linalg.vector_norm(start, dim=0)
    for _ in range(STEPS):
        large = correlation @ large
        largest = torch.linalg.vector_norm(large, dim=0)
        large = large / largest
        small = torch.cholesky_solve(small, factor)
        inverse = torch.linalg.vector_norm(small, dim=0)
        small = small / inverse
    return float((largest.max() * inverse.max()).sqrt())


def eigenpairs(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, smallest first, and eigenvectors of a Hermitian matrix.

    The divide and conquer that PyTorch uses gives up on some finite matrices of low rank, such as those of layers in
    which nearly all units are silent; LAPACK's relatively robust representations do not.
    """
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:
        values, vectors = map(torch.from_numpy, scipy.linalg.eigh(matrix.cpu().numpy(), driver="evr"))
    return values.to(matrix.device), vectors.to(matrix.device)


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values, largest first.

    Those of a large matrix are roots of the eigenvalues of its square, if none is so small that the square loses it:
    the absolute error is then below 1e-11 of the largest.
    """
    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mH
    if len(small) >= LARGE:
        squares = torch.linalg.eigvalsh(small @ small.mH)
        if squares[0] > 1e-10 * squares[-1]:
            return squares.flip(0).sqrt()
    return torch.linalg.svdvals(matrix)

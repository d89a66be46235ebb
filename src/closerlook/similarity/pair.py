"""Two layers and their products, centred: what a measure reads."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from closerlook.similarity.whitening import Whitening, eigenpairs, singular_values, whiten


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer's own moments over n examples; it is decomposed once, however many pairs it is in.

    `own` is the centred ``X'X`` [p, p] (complex at a spatial frequency), `squares` the sum of |x_i|^4, `floor` [p] the
    length that rounding gives to a constant unit, `eps` the relative rounding of the forward pass.
    """

    name: str
    n: int
    own: Tensor
    mean: Tensor
    squares: float
    floor: Tensor
    eps: float

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.own)

    @cached_property
    def total(self) -> float:
        """Sum of squares, ``tr X'X``."""
        return float(self.own.diagonal().real.sum())

    @cached_property
    def norm(self) -> float:
        """Frobenius norm of ``X'X``."""
        return float(torch.linalg.matrix_norm(self.own))

    @cached_property
    def whitening(self) -> Whitening:
        """Orthonormal directions of the units at unit variance."""
        return whiten(self.own, self.floor, self.eps)

    @cached_property
    def principal(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [r] of ``X'X``, largest first, and their vectors [p, r]; r is the rank of the units."""
        values, found = eigenpairs(self._varying)
        kept = slice(len(values) - self.whitening.rank, None)
        vectors = self.own.new_zeros(self.width, self.whitening.rank)
        vectors[self.whitening.live] = found[:, kept].flip(1)
        return values[kept].flip(0).clamp_min(0), vectors

    @cached_property
    def spectrum(self) -> Tensor:
        """Shares [r] of the variance that the principal directions hold, largest first."""
        if "principal" in self.__dict__:
            return self.principal[0] / self.total
        values = torch.linalg.eigvalsh(self._varying)
        return values[len(values) - self.whitening.rank :].flip(0).clamp_min(0) / self.total

    @property
    def _varying(self) -> Tensor:
        """``X'X`` of the units that vary: many of a trained network do not, and they only cost."""
        live = self.whitening.live
        return self.own[live][:, live]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two layers seen on the same examples.

    `cross` is the centred ``X'Y`` [p, q], `joint` the sum of |x_i|^2 |y_i|^2.
    """

    left: Layer
    right: Layer
    cross: Tensor
    joint: float

    @property
    def n(self) -> int:
        """Number of examples."""
        return self.left.n

    @property
    def ranks(self) -> tuple[int, int]:
        """Directions of each side."""
        return self.left.whitening.rank, self.right.whitening.rank

    @cached_property
    def whitened(self) -> Tensor:
        """``Q_x'Q_y`` [r_x, r_y]: its singular values are the canonical correlations."""
        return self.right.whitening(self.left.whitening(self.cross).mH).mH

    @cached_property
    def singular_values(self) -> Tensor:
        """Singular values [min(r_x, r_y)] of ``X'Y``, largest first."""
        varying = self.cross[self.left.whitening.live][:, self.right.whitening.live]
        return singular_values(varying)[: min(self.ranks)]

    @cached_property
    def canonical(self) -> tuple[Tensor, Tensor, Tensor]:
        """Canonical directions in the whitened units and their correlations: U [r_x, k], rho [k], V' [k, r_y]."""
        u, rho, v = torch.linalg.svd(self.whitened, full_matrices=False)
        return u, rho.clamp_max(1.0), v

    @cached_property
    def correlations(self) -> Tensor:
        """Canonical correlations, largest first."""
        if "canonical" in self.__dict__:
            return self.canonical[1]
        return singular_values(self.whitened).clamp_max(1.0)

    @property
    def swapped(self) -> "Pair":
        """The same pair seen from the other side."""
        return Pair(self.right, self.left, self.cross.T, self.joint)

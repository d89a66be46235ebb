"""The largest eigenvalues of a symmetric operator from products alone: Lanczos with full reorthogonalisation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from closerlook.errors import UsageError

Product = Callable[[Tensor], Tensor]
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ritz:
    """Approximate eigenpairs, largest first: `.values` [k], `.vectors` [k, D] and `.residuals` [k].

    An eigenvalue lies within `residuals[i]`, the norm of ``A y_i - value_i y_i``, of `values[i]`.
    """

    values: Array
    vectors: Tensor
    residuals: Array
    products: int
    converged: bool


def lanczos(
    product: Product,
    start: Tensor,
    *,
    top: int = 1,
    tolerance: float = 0.01,
    max_products: int = 200,
    generator: torch.Generator | None = None,
) -> Ritz:
    """The `top` largest (algebraic) eigenvalues of a symmetric operator.

    The basis v_1, v_2, ... of the Krylov space of `start` is made orthogonal twice against all before it; the operator
    is tridiagonal there, with coefficients in float64, and its eigenvalues there approach the outer ones of the whole.
    It stops as soon as every residual is at most `tolerance` times the magnitude of its value (or at rounding error).
    Memory: one vector per product.

    An eigenvalue of multiplicity m shows once per Krylov space: where a space is exhausted, a fresh vector from
    `generator` begins another, up to `top` of them. Where the tolerance is met before, equal eigenvalues count as one.

    Examples
    --------
    >>> found = lanczos(lambda v: torch.tensor([3.0, -5.0, 1.0]) * v, torch.ones(3))
    >>> found.values.round(6).tolist(), found.products
    ([3.0], 3)
    """
    if not 1 <= top <= len(start):
        raise UsageError(f"top={top} eigenvalues of {len(start)} parameters; ask for 1 to {len(start)}")
    if max_products < top:
        raise UsageError(f"max_products={max_products} cannot give {top} eigenvalues; allow more")
    if not tolerance > 0:
        raise UsageError(f"tolerance={tolerance} is never met; ask for a positive one")
    run = _Run([start / start.norm()])
    for _ in range(min(max_products, len(start))):
        run.extend(product)
        if run.finished(top, tolerance, generator):
            break
    return run.ritz(top)


class _Run:
    """Basis and tridiagonal matrix as they grow."""

    def __init__(self, basis: list[Tensor]) -> None:
        self.basis = basis
        self.alphas: list[float] = []
        self.betas: list[float] = []  # one more than are inside the matrix: the last is that of the residual
        self.exhausted = 0
        self.converged = False
        self.values, self.coordinates = np.empty(0), np.empty((0, 0))

    def extend(self, product: Product) -> None:
        last = self.basis[-1]
        image = product(last).clone()
        self.alphas.append(float(last.double() @ image.double()))
        image = self._orthogonal(image)
        self.betas.append(float(image.double().norm()))
        if self.betas[-1] > 0:
            self.basis.append(image / self.betas[-1])
        values, vectors = eigh_tridiagonal(np.array(self.alphas), np.array(self.betas[:-1]))
        self.values, self.coordinates = values[::-1], vectors[:, ::-1]

    def finished(self, top: int, tolerance: float, generator: torch.Generator | None) -> bool:
        k = len(self.alphas)
        rounding = 8 * torch.finfo(self.basis[0].dtype).eps * float(np.abs(self.values).max())
        if self.betas[-1] <= rounding or k == len(self.basis[0]):
            return self._exhaust(top, generator)
        if 0 < self.exhausted < top:
            return False  # another copy of a value that is there may be to come
        bounds = np.maximum(tolerance * np.abs(self.values[:top]), rounding)
        self.converged = k >= top and bool((self.residuals(top) <= bounds).all())
        return self.converged

    def _exhaust(self, top: int, generator: torch.Generator | None) -> bool:
        """At the end of a Krylov space: whether that was the last one that is needed."""
        self.exhausted += 1
        self.betas[-1] = 0.0
        self.converged = len(self.alphas) == len(self.basis[0]) or self.exhausted >= top
        if not self.converged:
            fresh = torch.randn(len(self.basis[0]), generator=generator).to(self.basis[0])
            fresh = self._orthogonal(fresh, self.basis[: len(self.alphas)])
            self.basis[len(self.alphas) :] = [fresh / fresh.norm()]
        return self.converged

    def _orthogonal(self, vector: Tensor, basis: list[Tensor] | None = None) -> Tensor:
        for _ in range(2):
            for other in self.basis if basis is None else basis:
                vector.sub_(other, alpha=float(other @ vector))
        return vector

    def residuals(self, top: int) -> Array:
        return np.asarray(self.betas[-1] * np.abs(self.coordinates[-1, :top]))

    def ritz(self, top: int) -> Ritz:
        vectors = torch.zeros(min(top, len(self.values)), len(self.basis[0])).to(self.basis[0])
        for row, weights in zip(vectors, self.coordinates.T, strict=False):
            for vector, weight in zip(self.basis, weights, strict=False):
                row.add_(vector, alpha=float(weight))
            row /= row.norm() * torch.sign(row[row.abs().argmax()])  # one of the two signs, always the same
        return Ritz(self.values[:top].copy(), vectors, self.residuals(top), len(self.alphas), self.converged)

"""Lanczos against spectra that are known, and against an independent solver."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from closerlook.curvature import lanczos
from closerlook.curvature.lanczos import Ritz
from closerlook.errors import UsageError


def symmetric(spectrum: list[float], seed: int = 0) -> Tensor:
    """A matrix with these eigenvalues and random eigenvectors."""
    values = torch.tensor(spectrum, dtype=torch.float64)
    draw = torch.randn(len(values), len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(draw).Q
    return basis @ torch.diag(values) @ basis.T


def solve(matrix: Tensor, seed: int = 1, **settings: float) -> Ritz:
    source = torch.Generator().manual_seed(seed)
    start = torch.randn(len(matrix), dtype=matrix.dtype, generator=source)
    return lanczos(lambda v: matrix @ v, start, generator=source, **settings)  # type: ignore[arg-type]


def test_largest_algebraic_values_and_their_vectors_as_an_independent_solver_finds_them() -> None:
    values = [-50.0, 9.0, 7.0, 5.0, *np.linspace(-1, 1, 96)]
    matrix = symmetric(values)
    found = solve(matrix, top=3, tolerance=1e-10)
    operator = LinearOperator(matrix.shape, matvec=lambda v: matrix.numpy() @ v, dtype=np.float64)
    known, vectors = eigsh(operator, k=3, which="LA", tol=1e-12)
    assert found.converged
    np.testing.assert_allclose(found.values, known[::-1], atol=1e-10)
    overlaps = np.abs(found.vectors.numpy() @ vectors[:, ::-1])
    np.testing.assert_allclose(overlaps, np.eye(3), atol=1e-7)
    assert found.products < 60


@given(seed=st.integers(0, 2**20), tolerance=st.sampled_from([0.3, 0.1, 0.01, 1e-4]), top=st.integers(1, 3))
@settings(max_examples=25)
def test_an_eigenvalue_lies_within_every_residual(seed: int, tolerance: float, top: int) -> None:
    spectrum = np.random.default_rng(seed).normal(size=40) ** 3
    matrix = symmetric(spectrum.tolist(), seed)
    found = solve(matrix, seed, top=top, tolerance=tolerance, max_products=40)
    for value, residual, vector in zip(found.values, found.residuals, found.vectors, strict=True):
        assert np.abs(spectrum - value).min() <= residual + 1e-12
        true = float((matrix @ vector - value * vector).norm())
        assert true == pytest.approx(residual, abs=1e-11)
        assert residual <= max(tolerance * abs(value), 1e-10)


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_scaling_the_matrix_scales_the_values(scale: float, seed: int) -> None:
    matrix = symmetric([4.0, 3.0, 1.0, 0.5, -2.0, 0.1, 0.0, -0.3], seed)
    one, two = solve(matrix, seed), solve(scale * matrix, seed)
    np.testing.assert_allclose(two.values, scale * one.values, rtol=1e-9)
    assert two.products == one.products


def test_of_a_zero_matrix_the_largest_value_is_zero() -> None:
    found = solve(torch.zeros(7, 7, dtype=torch.float64))
    assert (found.values.tolist(), found.residuals.tolist(), found.products) == ([0.0], [0.0], 1)
    assert found.converged
    assert float(found.vectors.norm()) == pytest.approx(1)


def test_rank_one_takes_two_products() -> None:
    found = solve(symmetric([5.0] + 19 * [0.0]))
    assert found.values[0] == pytest.approx(5.0, abs=1e-12)
    assert found.products == 2


def test_of_a_negative_matrix_it_is_the_one_nearest_to_zero() -> None:
    found = solve(symmetric([-1.0, -2.0, -30.0, -4.0, -5.0]), tolerance=1e-8)
    assert found.values[0] == pytest.approx(-1.0, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_multiple_eigenvalues_are_found_as_often_as_they_are_there(dtype: torch.dtype) -> None:
    matrix = symmetric([5.0, 5.0, 5.0, 2.0, 2.0, 1.0, 1.0, 1.0]).to(dtype)
    found = solve(matrix, top=4, tolerance=1e-5)
    np.testing.assert_allclose(found.values, [5, 5, 5, 2], atol=1e-4)
    np.testing.assert_allclose((found.vectors @ found.vectors.T).numpy(), np.eye(4), atol=1e-4)
    assert found.converged


def test_a_whole_spectrum_in_float32_stays_orthogonal() -> None:
    spectrum = np.geomspace(1e-3, 100, 60)
    found = solve(symmetric(spectrum.tolist()).float(), top=60, tolerance=1e-9)
    np.testing.assert_allclose(found.values[:20], spectrum[::-1][:20], rtol=1e-4)
    gram = (found.vectors @ found.vectors.T).numpy()
    np.testing.assert_allclose(gram, np.eye(60), atol=1e-4)


def test_too_few_products_are_said_and_bounded() -> None:
    spectrum = np.linspace(0.9, 1, 200)
    found = solve(symmetric(spectrum.tolist()), tolerance=1e-6, max_products=5)
    assert (found.converged, found.products) == (False, 5)
    assert np.abs(spectrum - found.values[0]).min() <= found.residuals[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top": 0}, "top=0"), ({"top": 9}, "ask for 1 to 8"), ({"top": 3, "max_products": 2}, "cannot give 3"),
        ({"tolerance": 0.0}, "never met"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_met_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        solve(symmetric([float(number) for number in range(8)]), **settings)

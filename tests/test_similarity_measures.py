"""Known answers, dense oracles and independent packages for every linear measure."""

from collections.abc import Callable
from math import acos, sqrt

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes, subspace_angles
from sklearn.cross_decomposition import CCA
from torch import Tensor

from closerlook.errors import ConditionError, MismatchError, TooFewExamplesError, UsageError
from closerlook.similarity import (
    GridMoments,
    Moments,
    Similarity,
    SpectralMoments,
    cca,
    cka,
    directions,
    procrustes,
    pwcca,
    rbf_cka,
    svcca,
    svcca_curve,
)
from closerlook.similarity.whitening import condition_of, eigenpairs, singular_values

EPS = 2.0**-52


def gaussian(n: int, width: int, seed: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments_of(x: Tensor, y: Tensor, **options: float) -> Moments:
    made = Moments(**options)
    made.update(x, y)
    return made


def centred_basis(x: Tensor) -> Tensor:
    """Orthonormal basis of the centred columns, by a singular value decomposition."""
    u, s, _ = torch.linalg.svd(x.double() - x.double().mean(0), full_matrices=False)
    return u[:, s > 1e-12 * s[0]]


def exact_correlations(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.svdvals(centred_basis(x).T @ centred_basis(y)).clamp_max(1)


def orthonormal(n: int, count: int, seed: int) -> Tensor:
    """Centred orthonormal columns, exactly known."""
    raw = gaussian(n, count, seed)
    return torch.linalg.qr(raw - raw.mean(0)).Q


def prescribed(rho: list[float], p: int, q: int, n: int = 400) -> tuple[Tensor, Tensor]:
    """x and y whose sample canonical correlations are exactly rho, mixed by random invertible maps."""
    basis = orthonormal(n, p + q, 0)
    left, right = basis[:, :p], basis[:, p:].clone()
    r = torch.tensor(rho, dtype=torch.float64)
    right[:, : len(rho)] = left[:, : len(rho)] * r + right[:, : len(rho)] * (1 - r.square()).sqrt()
    return left @ gaussian(p, p, 1) + 3, right @ gaussian(q, q, 2) - 5


def test_prescribed_correlations_come_back() -> None:
    rho = [1.0, 0.9, 0.5, 0.1, 1e-4, 0.0]
    result = cca(moments_of(*prescribed(rho, 6, 8)))
    np.testing.assert_allclose(result.coefficients, rho, atol=1e-12)
    assert result.value == pytest.approx(sum(rho) / 6, abs=1e-12)
    assert (result.ranks, result.n, result.dropped, float(result)) == ((6, 8), 400, ((), ()), result.value)


@pytest.mark.parametrize("shared", [0, 3, 8])
def test_shared_directions_give_as_many_ones(shared: int) -> None:
    x, y = prescribed([1.0] * shared + [0.0] * (8 - shared), 8, 8)
    result = cca(moments_of(x, y), summary="r2")
    assert result.value == pytest.approx(shared / 8, abs=1e-12)
    assert int((result.coefficients > 1 - 1e-10).sum()) == shared


def test_summaries_and_denominators() -> None:
    rho = np.array([0.9, 0.5, 0.1])
    x, y = prescribed(list(rho), 5, 3)
    moments = moments_of(torch.cat([x, x[:, :1]], 1), y)
    assert moments.pair().ranks == (5, 3)
    for name, count in (("min_rank", 3), ("min_width", 3), ("width_x", 6)):
        mean, r2 = cca(moments, denominator=name), cca(moments, summary="r2", denominator=name)
        assert mean.value == pytest.approx(rho.sum() / count, abs=1e-12)
        assert r2.value == pytest.approx((rho**2).sum() / count, abs=1e-12)
        assert r2.chance == pytest.approx(3 / count * 5 / 399)
        assert mean.chance == pytest.approx(3 / count * cca(moments).chance)
        assert mean.conventions == {"summary": "mean", "denominator": name}
    alone = cca(moments, summary="r2", coefficients=False)
    assert alone.value == pytest.approx((rho**2).mean(), abs=1e-12)
    assert alone.coefficients.size == 0
    assert alone.corrected == pytest.approx((alone.value - 5 / 399) / (1 - 5 / 399))
    with pytest.raises(UsageError, match="unknown summary"):
        cca(moments, summary="median")
    with pytest.raises(UsageError, match="unknown denominator"):
        cca(moments, denominator="width")


def test_cca_against_a_singular_value_decomposition_and_scikit_learn() -> None:
    x = gaussian(300, 5, 0) @ gaussian(5, 5, 1)
    y = x[:, :3] @ gaussian(3, 4, 2) + 2 * gaussian(300, 4, 3)
    result = cca(moments_of(x, y))
    np.testing.assert_allclose(result.coefficients, exact_correlations(x, y), atol=1e-13)
    theirs = CCA(n_components=4, scale=False, max_iter=20000, tol=1e-14).fit(x.numpy(), y.numpy())
    a, b = theirs.transform(x.numpy(), y.numpy())
    # Their power iteration stops before rounding does.
    expected = [abs(np.corrcoef(a[:, i], b[:, i])[0, 1]) for i in range(4)]
    np.testing.assert_allclose(result.coefficients, expected, atol=1e-5)


def test_correlations_are_cosines_of_principal_angles() -> None:
    x, y = gaussian(200, 4, 0), gaussian(200, 6, 1)
    angles = subspace_angles((x - x.mean(0)).numpy(), (y - y.mean(0)).numpy())
    np.testing.assert_allclose(cca(moments_of(x, y)).coefficients, np.sort(np.cos(angles))[::-1], atol=1e-13)


def test_invertible_maps_give_one() -> None:
    x = gaussian(400, 12, 0)
    moments = moments_of(x, x @ gaussian(12, 12, 1) + 7)
    for result in (cca(moments), svcca(moments, variance=1.0), pwcca(moments), pwcca(moments, side="y")):
        assert result.value == pytest.approx(1, abs=1e-10)


def test_measures_read_moments_or_a_pair_of_a_grid() -> None:
    x = gaussian(30, 2, 0)
    grid = GridMoments()
    grid.update({"a": x, "b": x})
    assert cca(grid.pair("a", "b")).value == pytest.approx(1)
    for wrong in (grid, x, SpectralMoments()):
        for measure in (cca, svcca, pwcca, cka, procrustes, directions):
            with pytest.raises(UsageError, match=r"measures read Moments .* not a \w+"):
                measure(wrong)


def test_canonical_directions_do_what_they_say() -> None:
    x, y = gaussian(300, 5, 0), gaussian(300, 4, 1)
    x = torch.cat([x, torch.ones(300, 1, dtype=torch.float64), x[:, :1] + x[:, 1:2]], 1)
    moments = moments_of(x, y)
    found = directions(moments)
    u, v = (x - x.mean(0)) @ found.x, (y - y.mean(0)) @ found.y
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(u.T @ u, eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(v.T @ v, eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(u.T @ v, torch.diag(found.rho), rtol=0, atol=1e-12)
    assert found.x.shape == (7, 4)
    assert not found.x[5].any()


# Numerics -------------------------------------------------------------------------------------------------------


def conditioned(condition: float, seed: int, width: int = 30, n: int = 2000) -> Tensor:
    """Float32 units whose correlations have about this condition."""
    mixing = torch.linalg.qr(gaussian(width, width, seed)).Q
    spread = torch.logspace(0, -np.log10(condition), width, dtype=torch.float64)
    return ((gaussian(n, width, seed + 1) * spread) @ mixing).float()


@pytest.mark.parametrize("condition", [1e1, 1e3, 1e4, 1e5, 4e5, 9e5])
def test_error_is_that_of_eps_condition_squared(condition: float) -> None:
    x = conditioned(condition, 0)
    y = (x.double() @ gaussian(30, 20, 5) + 0.5 * gaussian(2000, 20, 6)).float()
    result = cca(moments_of(x, y, cut=0.1))
    assert condition / 5 < result.condition[0] < 5 * condition
    error = np.abs(result.coefficients - exact_correlations(x, y).numpy()).max()
    assert error < 10 * EPS * max(result.condition) ** 2
    assert result.ranks == (30, 20)


def test_beyond_a_million_sums_refuse_and_a_second_pass_holds() -> None:
    x = conditioned(3e6, 0)
    y = (x.double() @ gaussian(30, 20, 5) + 0.5 * gaussian(2000, 20, 6)).float()
    moments = moments_of(x, y)
    with pytest.raises(ConditionError, match=r"x has condition .* second pass"):
        cca(moments)
    with pytest.raises(ConditionError):
        pwcca(moments)
    batches = list(zip(x.split(300), y.split(300), strict=True))
    result = cca(moments, again=batches)
    assert result.condition[0] > 1e6
    assert "two passes" in result.notes
    assert np.abs(result.coefficients - exact_correlations(x, y).numpy()).max() < 10 * EPS * result.condition[0]
    with pytest.raises(MismatchError, match="300 examples and the first had 2000"):
        cca(moments, again=batches[:1])
    assert 0 <= cka(moments).value <= 1
    moments.cut = 30
    assert cca(moments).ranks[0] < 30


def test_an_offset_does_not_matter() -> None:
    x = (gaussian(2000, 20, 0) @ gaussian(20, 20, 1) + 1e4).float()
    y = (x.double() @ gaussian(20, 15, 2) + 5 * gaussian(2000, 15, 3)).float()
    result = cca(moments_of(x, y))
    assert np.abs(result.coefficients - exact_correlations(x, y).numpy()).max() < 1e-11


def test_duplicates_and_dependent_units_add_nothing() -> None:
    x, y = gaussian(500, 6, 0).float().double(), gaussian(500, 4, 1) + gaussian(500, 6, 0)[:, :4]
    more = torch.cat([x, x[:, 2:4], x @ gaussian(6, 3, 2)], 1)[:, torch.randperm(11)]
    assert moments_of(more, y).pair().ranks == (6, 4)
    np.testing.assert_allclose(cca(moments_of(more, y)).coefficients, exact_correlations(x, y), atol=1e-12)


def test_constant_units_are_dropped_and_listed() -> None:
    x, y = gaussian(500, 4, 0), gaussian(500, 3, 1)
    x[:, 1], y[:, 2] = 12345.678, 0.0
    result = cca(moments_of(x, y))
    assert (result.dropped, result.ranks) == (((1,), (2,)), (3, 2))
    np.testing.assert_allclose(result.coefficients, exact_correlations(x[:, [0, 2, 3]], y[:, :2]), atol=1e-12)


@pytest.mark.parametrize("measure", [cca, cka, procrustes, pwcca, svcca])
def test_silent_units_change_nothing(measure: Callable[[Moments], Similarity]) -> None:
    x, y = gaussian(500, 5, 0), gaussian(500, 4, 1) + gaussian(500, 5, 0)[:, :4]
    among_silent = torch.zeros(500, 9, dtype=torch.float64)
    among_silent[:, [1, 2, 4, 6, 8]] = x
    plain, found = measure(moments_of(x, y)), measure(moments_of(among_silent, y))
    assert (found.value, found.chance) == pytest.approx((plain.value, plain.chance), abs=1e-13)
    assert (found.ranks, found.dropped) == (plain.ranks, ((0, 3, 5, 7), ()))
    if plain.coefficients is not None:
        np.testing.assert_allclose(found.coefficients, plain.coefficients, rtol=0, atol=1e-13)


def test_principal_directions_leave_silent_units_out() -> None:
    x = gaussian(500, 3, 0) @ gaussian(3, 3, 1)
    among_silent = torch.zeros(500, 5, dtype=torch.float64)
    among_silent[:, [0, 2, 3]] = x
    layer = moments_of(among_silent, x).pair().left
    values, vectors = layer.principal
    centred = among_silent - among_silent.mean(0)
    torch.testing.assert_close(vectors * values @ vectors.T, centred.T @ centred, rtol=1e-12, atol=1e-12)
    assert values.shape == (3,)
    assert not vectors[[1, 4]].any()


def test_a_unit_that_varies_only_by_rounding_is_constant() -> None:
    x, y = gaussian(500, 4, 0), gaussian(500, 3, 1)
    x[:, 1] = 1 + 3e-8 * gaussian(500, 1, 2)[:, 0]
    for x_in in (x, x.float()):
        assert cca(moments_of(x_in, y)).dropped == ((1,), ())
    assert cca(moments_of(x, y, dtype=torch.float64)).dropped == ((), ())


def test_a_unit_of_small_scale_counts_as_it_is() -> None:
    x, y = gaussian(500, 4, 0), gaussian(500, 3, 1)
    plain = cca(moments_of(x, y)).coefficients
    x[:, 1] *= 1e-7
    result = cca(moments_of(x, y))
    assert result.condition[0] < 2
    np.testing.assert_allclose(result.coefficients, plain, atol=1e-12)


def test_a_unit_that_hardly_ever_fires() -> None:
    x, y = gaussian(500, 4, 0), gaussian(500, 3, 1)
    x[:, 1] = 0.0
    x[7, 1] = 1e-7
    np.testing.assert_allclose(cca(moments_of(x, y)).coefficients, exact_correlations(x * 1.0, y), atol=1e-7)
    assert cca(moments_of(x, y)).ranks == (4, 3)


def test_rounding_of_the_forward_pass_is_no_direction() -> None:
    x = (gaussian(2000, 10, 0) @ gaussian(10, 40, 1)).float()
    assert moments_of(x, x).pair().ranks == (10, 10)
    # With a mean of 300 standard deviations rounding is 300 times as large, relative to the units.
    assert moments_of(x + 1000, x + 1000).pair().ranks == (10, 10)


def test_more_units_than_examples() -> None:
    x, y = gaussian(60, 200, 0), gaussian(60, 4, 1)
    with pytest.raises(TooFewExamplesError, match="take more than"):
        cca(moments_of(x, y), insist=True)
    x = gaussian(60, 10, 0) @ gaussian(10, 200, 2)
    result = cca(moments_of(x, y))
    assert result.ranks == (10, 4)
    np.testing.assert_allclose(result.coefficients, exact_correlations(x, y), atol=1e-11)
    wide = moments_of(gaussian(60, 200, 0), gaussian(60, 300, 1))
    assert -0.2 < cka(wide).value < 0.2
    assert cka(wide, debiased=False).value > 0.7
    assert procrustes(wide).corrected == pytest.approx(0, abs=0.02)


def test_few_examples_are_refused_unless_insisted() -> None:
    moments = moments_of(gaussian(49, 10, 0), gaussian(49, 3, 1))
    for measure in (cca, pwcca):
        with pytest.raises(TooFewExamplesError, match=r"less than 5 each, so chance is high .* 0\.21.*; take 50"):
            measure(moments)
        assert measure(moments, insist=True).notes == ("insisted: 49 examples for 10 directions is less than 5 each",)
    with pytest.raises(TooFewExamplesError):
        svcca(moments, variance=1.0)
    assert svcca(moments, directions=3).notes == ()
    assert cca(moments_of(gaussian(50, 10, 0), gaussian(50, 3, 1))).notes == ()
    small = moments_of(gaussian(13, 10, 0), gaussian(13, 3, 1))
    with pytest.raises(TooFewExamplesError, match="above n - 1"):
        cca(small, insist=True)


@pytest.mark.parametrize("measure", [cca, svcca, pwcca, cka, procrustes])
@pytest.mark.parametrize("dead", ["x", "y", "both"])
def test_rank_zero_is_missing_with_a_note(measure: object, dead: str) -> None:
    x, y = gaussian(100, 3, 0), gaussian(100, 2, 1)
    for side, rows in (("x", x), ("y", y)):
        if dead in (side, "both"):
            rows[:] = 3.0
    result = measure(moments_of(x, y))
    assert np.isnan([result.value, result.chance, result.corrected]).all()
    assert "does not vary" in result.notes[0]
    assert result.to_dict()["value"] is None
    assert 0 in result.ranks


def test_the_estimated_condition_is_close() -> None:
    for condition in (3.0, 1e2, 1e4):
        x = conditioned(condition, 3, width=60).double()
        x -= x.mean(0)
        correlation = torch.corrcoef(x.T)
        values = torch.linalg.eigvalsh(correlation)
        found = condition_of(correlation, torch.linalg.cholesky(correlation))
        assert 0.75 < found / float((values[-1] / values[0]).sqrt()) < 1 + 1e-6


@pytest.mark.parametrize("spread", [0.0, 3.0, 8.0])
def test_singular_values_of_large_matrices(spread: float) -> None:
    u, v = (torch.linalg.qr(gaussian(340, 320, seed)).Q for seed in (0, 1))
    exact = torch.logspace(0, -spread, 320, dtype=torch.float64)
    for matrix in ((u * exact) @ v.T, ((u * exact) @ v.T)[:, :330]):
        torch.testing.assert_close(singular_values(matrix), torch.linalg.svdvals(matrix)[: min(matrix.shape)],
                                   rtol=0, atol=1e-11)  # fmt: skip


# The other measures ---------------------------------------------------------------------------------------------


def test_svcca_against_singular_value_decompositions() -> None:
    x = gaussian(400, 12, 0) * torch.logspace(0, -2, 12, dtype=torch.float64) @ gaussian(12, 12, 1)
    y = x @ gaussian(12, 9, 2) + gaussian(400, 9, 3)
    bases, counts = [], []
    for rows in (x, y):
        u, s, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        shares = s.square().cumsum(0) / s.square().sum()
        bases.append(u)
        counts.append(int((shares < 0.9).sum()) + 1)
    expected = torch.linalg.svdvals(bases[0][:, : counts[0]].T @ bases[1][:, : counts[1]])
    result = svcca(moments_of(x, y), variance=0.9)
    assert result.ranks == tuple(counts)
    np.testing.assert_allclose(result.coefficients, expected, atol=1e-11)
    assert svcca(moments_of(x, y), variance=0.9, summary="r2").value == pytest.approx(float(expected.square().mean()))
    fixed = svcca(moments_of(x, y), directions=(3, 5))
    np.testing.assert_allclose(
        fixed.coefficients, torch.linalg.svdvals(bases[0][:, :3].T @ bases[1][:, :5]), atol=1e-11
    )
    assert fixed.conventions == {"summary": "mean", "directions": (3, 5)}


def test_svcca_curve_is_svcca_at_every_k() -> None:
    x, y = gaussian(200, 8, 0), gaussian(200, 6, 1) + gaussian(200, 8, 0)[:, :6]
    moments = moments_of(x, y)
    curve = svcca_curve(moments)
    for k in range(1, 7):
        one = svcca(moments, directions=k, summary="r2")
        assert curve.r2[k - 1] == pytest.approx(one.value, abs=1e-12)
        assert curve.r2_chance[k - 1] == pytest.approx(one.chance)
    for k, mean, level in zip(curve.grid, curve.mean, curve.mean_chance, strict=True):
        one = svcca(moments, directions=int(k))
        assert (mean, level) == (pytest.approx(one.value, abs=1e-12), one.chance)
    assert curve.shares_y[-1] == pytest.approx(1)
    assert svcca_curve(moments, grid=[2, 4]).grid.tolist() == [2, 4]
    with pytest.raises(UsageError, match="from 1 to 6"):
        svcca_curve(moments, grid=[7])


@pytest.mark.parametrize("small", [1.0, 1e-3, 1e-5, 5e-6, 1e-8, 1e-20])
def test_svcca_says_when_a_direction_is_too_small_for_sums(small: float) -> None:
    # Plain CCA does not see the scale of a unit; principal directions do.
    x = gaussian(500, 6, 0)
    y = x[:, :5] + gaussian(500, 5, 1)
    x[:, 2] *= small
    moments = moments_of(x, y)
    assert cca(moments).ranks == (6, 5)
    if small < 1e-6:
        with pytest.raises(ConditionError, match=r"direction 6 of x is .* ask for at most 5 directions"):
            svcca(moments, directions=(6, 5))
        assert len(svcca_curve(moments_of(x, x)).r2) == 5
        return
    result = svcca(moments, directions=(6, 5))
    assert 0.3 / small < result.condition[0] < 3 / small
    error = np.abs(result.coefficients - exact_correlations(x, y).numpy()).max()
    assert error < 10 * EPS * max(result.condition) ** 2
    assert len(svcca_curve(moments_of(x, x)).r2) == 6


def test_svcca_arguments() -> None:
    moments = moments_of(gaussian(100, 4, 0), gaussian(100, 3, 1))
    with pytest.raises(UsageError, match="y has 3 directions, not 4"):
        svcca(moments, directions=4)
    with pytest.raises(UsageError, match="share in"):
        svcca(moments, variance=0)


@pytest.mark.parametrize("shapes", [(5, 4), (3, 6)])
def test_pwcca_is_the_formula_of_the_paper(shapes: tuple[int, int]) -> None:
    x = gaussian(300, shapes[0], 0) @ gaussian(shapes[0], shapes[0], 1)
    y = gaussian(300, shapes[1], 2) + x[:, :1]
    x, y = x - x.mean(0), y - y.mean(0)
    u, rho, v = torch.linalg.svd(centred_basis(x).T @ centred_basis(y), full_matrices=False)
    variates = {"x": centred_basis(x) @ u, "y": centred_basis(y) @ v.T}
    values = {}
    for side, rows in (("x", x), ("y", y)):
        alpha = (variates[side].T @ rows).abs().sum(1)
        values[side] = float((alpha * rho).sum() / alpha.sum())
        result = pwcca(moments_of(x, y), side=side)
        assert result.value == pytest.approx(values[side], abs=1e-12)
        np.testing.assert_allclose(result.details[f"weights_{side}"], alpha / alpha.sum(), atol=1e-10)
    assert pwcca(moments_of(x, y), side="mean").value == pytest.approx(sum(values.values()) / 2, abs=1e-12)
    assert pwcca(moments_of(y, x), side="y").value == pytest.approx(values["x"], abs=1e-12)
    with pytest.raises(UsageError, match="unknown side"):
        pwcca(moments_of(x, y), side="z")


def hsic_1(k: Tensor, other: Tensor) -> float:
    """The unbiased estimator of Song et al. 2012, equation 5, from kernel matrices as they are."""
    n = len(k)
    k, other = k.clone().fill_diagonal_(0), other.clone().fill_diagonal_(0)
    ones = torch.ones(n, dtype=torch.float64)
    first = float((k @ other).trace())
    second = float(ones @ k @ ones) * float(ones @ other @ ones) / ((n - 1) * (n - 2))
    third = 2 * float(ones @ k @ other @ ones) / (n - 2)
    return (first + second - third) / (n * (n - 3))


@pytest.mark.parametrize(("n", "p", "q"), [(5, 3, 2), (40, 60, 3), (200, 7, 90)])
def test_debiased_cka_is_that_of_the_gram_matrices(n: int, p: int, q: int) -> None:
    x, y = gaussian(n, p, 0) + 2, gaussian(n, q, 1)
    y[:, 0] += x[:, 0]
    k, other = x @ x.T, y @ y.T
    expected = hsic_1(k, other) / sqrt(hsic_1(k, k) * hsic_1(other, other))
    moments = Moments()
    for start in range(0, n, 3):
        moments.update(x[start : start + 3], y[start : start + 3])
    # HSIC_1 does not see translations; the Gram matrices lose some digits to this one.
    assert cka(moments).value == pytest.approx(expected, abs=1e-10)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    k, other = centring @ k @ centring, centring @ other @ centring
    biased = float((k * other).sum() / (k.norm() * other.norm()))
    assert cka(moments, debiased=False).value == pytest.approx(biased, abs=1e-9)


def test_debiased_cka_may_be_negative_and_is_not_clamped() -> None:
    values = [cka(moments_of(gaussian(12, 5, seed), gaussian(12, 5, 100 + seed))).value for seed in range(20)]
    assert min(values) < -0.05
    assert np.mean(values) == pytest.approx(0, abs=0.08)
    with pytest.raises(TooFewExamplesError, match="needs 4 examples"):
        cka(moments_of(gaussian(3, 2, 0), gaussian(3, 2, 1)))


@pytest.mark.parametrize("debiased", [True, False])
def test_gaussian_kernel_from_its_definition(debiased: bool) -> None:
    x, y = gaussian(30, 3, 0), gaussian(30, 2, 1)
    y[:, 0] += x[:, 0]
    kernels = []
    for rows in (x, y):
        squared = (rows[:, None] - rows).square().sum(2)
        median = squared[squared > 0].sqrt().median()
        kernels.append(torch.exp(-squared / (2 * (0.8 * median) ** 2)))
    centring = torch.eye(30, dtype=torch.float64) - 1 / 30

    def hsic(k: Tensor, other: Tensor) -> float:
        return hsic_1(k, other) if debiased else float((centring @ k @ centring * other).sum())

    k, other = kernels
    expected = hsic(k, other) / sqrt(hsic(k, k) * hsic(other, other))
    result = rbf_cka(x, y, bandwidth=0.8, debiased=debiased)
    assert result.value == pytest.approx(expected, abs=1e-12)
    shuffled = [
        rbf_cka(x, y[torch.randperm(30, generator=torch.Generator().manual_seed(seed))], bandwidth=0.8,
                debiased=debiased).value
        for seed in range(200)
    ]  # fmt: skip
    assert np.mean(shuffled) == pytest.approx(result.chance, abs=4 * np.std(shuffled) / sqrt(200))


def test_gaussian_kernel_refuses() -> None:
    x = gaussian(30, 3, 0)
    with pytest.raises(UsageError, match="raise max_bytes"):
        rbf_cka(x, x, max_bytes=1000)
    with pytest.raises(UsageError, match="bandwidth"):
        rbf_cka(x, x, bandwidth=0)
    with pytest.raises(TooFewExamplesError):
        rbf_cka(x[:3], x[:3])
    dead = rbf_cka(x, torch.ones(30, 2))
    assert np.isnan(dead.value)
    assert dead.notes == ("y does not vary",)


def test_procrustes_against_scipy() -> None:
    x, y = gaussian(100, 6, 0), gaussian(100, 6, 1) + gaussian(100, 6, 0)
    a, b = ((rows - rows.mean(0)) / (rows - rows.mean(0)).norm() for rows in (x, y))
    rotation, nuclear = orthogonal_procrustes(a.numpy(), b.numpy())
    result = procrustes(moments_of(x, y))
    assert result.value == pytest.approx(nuclear, abs=1e-12)
    distance = np.linalg.norm(a.numpy() @ rotation - b.numpy()) ** 2
    assert result.details["squared_distance"] == pytest.approx(distance, abs=1e-12)
    assert result.details["angle"] == pytest.approx(acos(nuclear))


def test_the_procrustes_angle_is_a_metric() -> None:
    layers = [gaussian(50, width, seed) for seed, width in enumerate((3, 5, 4, 3))]
    angle = {
        (i, j): procrustes(moments_of(a, b)).details["angle"]
        for i, a in enumerate(layers) for j, b in enumerate(layers)
    }  # fmt: skip
    for i in range(4):
        assert angle[i, i] == pytest.approx(0, abs=1e-7)
        for j in range(4):
            assert angle[i, j] == pytest.approx(angle[j, i], abs=1e-9)
            assert all(angle[i, j] <= angle[i, k] + angle[k, j] + 1e-9 for k in range(4))


def test_a_layer_of_one_unit() -> None:
    x, y = gaussian(100, 1, 0), gaussian(100, 1, 1) + gaussian(100, 1, 0)
    rho = abs(np.corrcoef(x[:, 0], y[:, 0])[0, 1])
    moments = moments_of(x, y)
    for result in (cca(moments), svcca(moments), pwcca(moments), procrustes(moments)):
        assert result.value == pytest.approx(rho, abs=1e-12)
    assert cka(moments, debiased=False).value == pytest.approx(rho**2, abs=1e-12)


def test_results_are_plain_data() -> None:
    result = cca(moments_of(gaussian(100, 3, 0), gaussian(100, 2, 1)))
    told = result.to_dict()
    assert set(told) >= {"measure", "value", "chance", "corrected", "n", "ranks", "dropped", "condition", "notes"}
    assert told["coefficients"] == pytest.approx(result.coefficients.tolist())
    assert isinstance(result, Similarity)
    assert "simulated from the ranks" in told["chance_from"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_where_one_algorithm_gives_up_another_finds_the_eigenvectors(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.randn(40, 12, dtype=dtype, generator=torch.Generator().manual_seed(0))
    rows[:, 5:] = 0  # silent units
    matrix = rows.mH @ rows
    expected = torch.linalg.eigvalsh(matrix)

    def gives_up(matrix: Tensor) -> None:
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    values, vectors = eigenpairs(matrix)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(vectors * values @ vectors.mH, matrix, rtol=0, atol=1e-12)
    torch.testing.assert_close(vectors.mH @ vectors, torch.eye(12, dtype=dtype), rtol=0, atol=1e-13)

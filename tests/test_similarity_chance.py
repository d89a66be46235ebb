"""Chance levels against pairings at random, permutation tests that hold their level, intervals that cover."""

from math import pi, sqrt

import numpy as np
import pytest
import torch
from torch import Tensor

from closerlook.errors import TooFewExamplesError, UsageError
from closerlook.similarity import (
    Moments,
    Pair,
    cca,
    cca_permutation_test,
    chance,
    cka,
    jackknife,
    permutation_test,
    procrustes,
    pwcca,
    svcca,
)
from closerlook.similarity.chance import nuclear_norm, random_blocks, random_correlations, top_edge


def gaussian(n: int, width: int, seed: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments_of(x: Tensor, y: Tensor, **options: int) -> Moments:
    made = Moments(**options)
    made.update(x, y)
    return made


def heavy(n: int, width: int, seed: int) -> Tensor:
    """Sparse, skewed, correlated activations with a decaying spectrum, as layers with ReLU have them."""
    mixed = gaussian(n, width, seed) @ (gaussian(width, width, seed + 1) * torch.linspace(3, 0.3, width).double())
    return (mixed - 0.5 * mixed.std()).relu()


MEASURES = {
    "mean": cca,
    "r2": lambda pair: cca(pair, summary="r2"),
    "svcca": lambda pair: svcca(pair, variance=0.9),
    "svcca 3 and 5": lambda pair: svcca(pair, directions=(3, 5), summary="r2"),
    "pwcca x": pwcca,
    "pwcca y": lambda pair: pwcca(pair, side="y"),
    "cka": cka,
    "cka biased": lambda pair: cka(pair, debiased=False),
    "procrustes": procrustes,
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("widths", [(6, 12), (12, 6)])
def test_chance_is_the_mean_over_pairings_at_random(name: str, widths: tuple[int, int]) -> None:
    x, y = heavy(300, widths[0], 0), heavy(300, widths[1], 10)
    y[:, :3] += x[:, :3]  # a real similarity must not change the chance level
    test = permutation_test(x, y, MEASURES[name], permutations=400)
    error = test.null.std() / sqrt(len(test.null))
    # The simulated levels are those of a random rotation, which pairing skewed examples is up to order 1/n.
    slack = 0.02 * test.observed.chance if "simulated" in test.observed.null.how else 0.0
    assert test.observed.chance == pytest.approx(test.null.mean(), abs=3.5 * error + slack)
    assert test.observed.null.error < 0.002
    assert test.observed.value > test.observed.chance
    assert test.p_value == pytest.approx(1 / 401)


def test_chance_levels_in_closed_form() -> None:
    moments = moments_of(gaussian(101, 4, 0), gaussian(101, 10, 1))
    assert cca(moments, summary="r2").chance == 0.1
    assert svcca(moments, directions=(3, 5), summary="r2").chance == 0.05
    assert cka(moments).chance == 0.0
    assert cca(moments, summary="r2").null.error == 0.0
    assert "exact" in cca(moments, summary="r2").null.how


def test_the_level_of_a_nuclear_norm_knows_no_first_side() -> None:
    long, short = torch.full((40,), 1 / 40).double(), torch.tensor([0.7, 0.2, 0.1]).double()
    both = [nuclear_norm(*sides, 200, 0) for sides in ((long, short), (short, long))]
    assert both[0].value == both[1].value
    # Of one direction each it is |rho| of two random directions of n - 1, whose mean is about sqrt(2 / (pi (n - 1))).
    one = torch.ones(1).double()
    assert nuclear_norm(one, one, 200, 0).value == pytest.approx(sqrt(2 / (pi * 199)), abs=0.005)


def test_a_chance_level_is_that_of_its_seed() -> None:
    moments = moments_of(gaussian(101, 4, 0), gaussian(101, 10, 1))
    state = torch.get_rng_state()
    levels = [[measure(moments, seed=seed).chance for seed in (0, 0, 1)] for measure in (cca, procrustes)]
    for first, again, other in levels:
        assert first == again
        assert first != other
        assert first == pytest.approx(other, abs=0.01)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("kept", "stacks"), [(0, (25,)), (1 << 19, (25,)), (0, (10, 10, 5)), (0, (1,) * 25)])
def test_a_simulated_level_is_that_of_its_draws_however_they_are_held(
    kept: int, stacks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chance, "MOST_KEPT", kept)
    monkeypatch.setattr(chance, "MOST_STACKED", 60 * 40 * stacks[0] + 1)
    chance._kept_draws.cache_clear()
    first, second = torch.rand(2, 60, generator=torch.Generator().manual_seed(0)).double()
    first, second = first[:40] / first[:40].sum(), second / second.sum()
    rng = np.random.default_rng(3)
    blocks = np.concatenate([random_blocks(60, 40, 300, rng, count).numpy() for count in stacks])  # (200 / 40)^2
    expected = [np.linalg.svd(b * np.sqrt(np.outer(second, first)), compute_uv=False).sum() for b in blocks]
    for _ in range(2):
        level = nuclear_norm(first, second, 300, 3)
        assert level.value == pytest.approx(np.mean(expected), rel=1e-13)
        assert level.error == pytest.approx(np.std(expected, ddof=1) / 5, rel=1e-11)


def test_the_level_of_large_layers_is_that_of_singular_values() -> None:
    spectra = [torch.logspace(0, -12, rank).double() for rank in (320, 305)]  # the square of the smallest is rounding
    first, second = (spectrum / spectrum.sum() for spectrum in spectra)
    blocks = random_blocks(320, 305, 700, np.random.default_rng(0), 4).numpy()
    expected = [np.linalg.svd(b * np.sqrt(np.outer(first, second)), compute_uv=False).sum() for b in blocks]
    # Each of 305 roots is off by at most sqrt(eps) of the largest, which is below 1.
    assert nuclear_norm(first, second, 700, 0).value == pytest.approx(np.mean(expected), abs=305 * 2.0**-26)


@pytest.mark.parametrize(("r_x", "r_y", "n"), [(1, 3, 50), (5, 8, 60), (20, 10, 31), (6, 6, 13), (2, 2, 5)])
def test_random_subspaces_have_the_law_of_random_bases(r_x: int, r_y: int, n: int) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([random_correlations(r_x, r_y, n, rng) for _ in range(800)])
    blocks = torch.linalg.svdvals(random_blocks(r_x, r_y, n, rng, 800)).numpy()
    bases = []
    for _ in range(800):
        left = np.linalg.qr(rng.standard_normal((n - 1, r_x)))[0]
        right = np.linalg.qr(rng.standard_normal((n - 1, r_y)))[0]
        bases.append(np.linalg.svd(left.T @ right, compute_uv=False))
    expected = np.array(bases)
    for made in (drawn, blocks):
        for power in (1, 2):
            error = 4.5 * (expected**power).std(0) / sqrt(400) + 1e-9
            assert (np.abs((made**power).mean(0) - (expected**power).mean(0)) < error).all()
    assert (drawn**2).mean() == pytest.approx(max(r_x, r_y) / (n - 1), abs=0.02)


def test_complex_random_subspaces() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([random_correlations(3, 5, 20, rng, beta=2) for _ in range(800)])
    bases = []
    for _ in range(800):
        left, right = (
            np.linalg.qr(rng.standard_normal((19, r)) + 1j * rng.standard_normal((19, r)))[0] for r in (3, 5)
        )
        bases.append(np.linalg.svd(left.conj().T @ right, compute_uv=False))
    np.testing.assert_allclose(drawn.mean(0), np.mean(bases, 0), atol=0.02)


def test_the_top_of_chance_lies_near_the_edge() -> None:
    rng = np.random.default_rng(0)
    top = [random_correlations(50, 100, 1000, rng)[0] for _ in range(100)]
    assert np.mean(top) == pytest.approx(top_edge(50, 100, 1000), abs=0.02)
    assert top_edge(5, 6, 12) == top_edge(50, 6, 12) == 1.0


def test_permutations_are_of_all_rows_and_of_their_seed() -> None:
    x = gaussian(40, 2, 0)
    y = x + gaussian(40, 2, 1)
    one, again, other = (permutation_test(x, y, permutations=49, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.null, again.null)
    assert not np.array_equal(one.null, other.null)
    # Against the moments of rows that were really shuffled.
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert one.null[0] == pytest.approx(cka(moments_of(x, y[order])).value, abs=1e-12)
    by_name = permutation_test(x, y, "cca:r2", permutations=9)
    np.testing.assert_array_equal(by_name.null, permutation_test(x, y, MEASURES["r2"], permutations=9).null)
    with pytest.raises(UsageError, match="needs permutations"):
        permutation_test(x, y, permutations=0)


def test_what_does_not_vary_is_not_significant() -> None:
    x, constant = gaussian(60, 3, 0), torch.ones(60, 2)
    for name in ("cka", "cca", "procrustes"):
        test = permutation_test(x, constant, name, permutations=9)
        assert np.isnan([test.observed.value, test.p_value]).all()
    assert cca_permutation_test(x, constant, permutations=9).p_values.size == 0


def test_perfect_correlations_are_significant() -> None:
    x = gaussian(60, 2, 0)
    found = cca_permutation_test(x, torch.stack([x[:, 0] * 2, x[:, 0] + x[:, 1]], 1), permutations=19)
    np.testing.assert_allclose(found.rho, 1)
    np.testing.assert_array_equal(found.p_values, [0.05, 0.05])


def test_independent_sides_are_rejected_as_often_as_the_level_says() -> None:
    p = [permutation_test(gaussian(30, 3, seed), gaussian(30, 2, 900 + seed), permutations=39, seed=seed).p_value
         for seed in range(300)]  # fmt: skip
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=3 * sqrt(0.09 / 300))


def correlated(seed: int, rho: float) -> tuple[Tensor, Tensor]:
    """One true correlation, two directions of nothing on each side."""
    x, y = gaussian(40, 3, seed), gaussian(40, 3, 5000 + seed)
    y[:, 0] = rho * x[:, 0] + sqrt(1 - rho**2) * y[:, 0]
    return x, y


def test_stepwise_tests_find_what_is_there_and_hold_their_level_beyond_it() -> None:
    tests = [cca_permutation_test(*correlated(seed, 0.9), permutations=39, seed=seed) for seed in range(200)]
    p = np.array([test.p_values for test in tests])
    assert p.shape == (200, 3)
    assert (np.diff(p, axis=1) >= 0).all()
    assert (p[:, 0] <= 0.025 + 1e-9).mean() > 0.95
    # The second correlation is at chance: wrongly called real in a tenth of cases at most (and not far below).
    second = (p[:, 1] <= 0.1).mean()
    assert second <= 0.1 + 3 * sqrt(0.09 / 200)
    assert second >= 0.03


def test_stepwise_tests_refuse_and_stop() -> None:
    x, y = gaussian(60, 5, 0), gaussian(60, 4, 1)
    found = cca_permutation_test(x, y, most=2, permutations=19)
    assert found.p_values.shape == (2,)
    np.testing.assert_allclose(found.rho, cca(moments_of(x, y)).coefficients, atol=1e-12)
    with pytest.raises(TooFewExamplesError):
        cca_permutation_test(x[:20], y[:20], permutations=19)


# Intervals ------------------------------------------------------------------------------------------------------

RHO = [0.8, 0.5, 0.3]


def related(n: int, p: int, q: int, seed: int) -> Moments:
    """Population correlations RHO, the rest at 0."""
    x, y = gaussian(n, p, seed), gaussian(n, q, 10_000 + seed)
    rho = torch.tensor(RHO, dtype=torch.float64)
    y[:, :3] = x[:, :3] * rho + y[:, :3] * (1 - rho.square()).sqrt()
    return moments_of(x, y, groups=10)


@pytest.mark.parametrize(("n", "p", "q"), [(800, 3, 4), (300, 12, 15)])
def test_jackknife_intervals_cover_the_population(n: int, p: int, q: int) -> None:
    squares = sum(rho**2 for rho in RHO)
    truth = np.array([squares / p, squares / sqrt(p * q), squares / sqrt(p * q)])

    def read(moments: Moments) -> list[float]:
        pair: Pair = moments.pair()
        return [cca(pair, summary="r2").value, cka(pair).value, cka(pair, debiased=False).value]

    found = [jackknife(related(n, p, q, seed), read) for seed in range(60)]
    covered = np.mean([(one.low <= truth) & (truth <= one.high) for one in found], axis=0)
    assert (covered >= 0.95 - 3 * sqrt(0.95 * 0.05 / 60)).all()
    # The error is that of the values over samples, and not much more.
    ratio = np.mean([one.error for one in found], axis=0) / np.std([one.value for one in found], axis=0)
    assert ((ratio > 0.75) & (ratio < 1.6)).all()
    # Chance is a bias of order 1/n, and the jackknife takes it out.
    bias = np.mean([one.value for one in found], axis=0) - truth
    assert np.mean([one.bias for one in found], axis=0)[0] == pytest.approx(bias[0], abs=0.01)


def test_the_jackknife_needs_groups() -> None:
    with pytest.raises(UsageError, match="groups=10"):
        jackknife(moments_of(gaussian(100, 3, 0), gaussian(100, 2, 1)), lambda m: cka(m).value)
    with pytest.raises(TooFewExamplesError, match="10 groups in turn, and there are 9 examples"):
        jackknife(moments_of(gaussian(9, 3, 0), gaussian(9, 2, 1), groups=10), lambda m: cka(m).value)

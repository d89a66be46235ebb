"""Joint intervals of means and barriers over examples: known answers, and coverage of simulated truths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, studentized_range

from closerlook.errors import UsageError
from closerlook.landscape.heights import bases, highest, joint_interval
from closerlook.landscape.intervals import critical, pairs, standard_error

# A quantile of 20,000 draws near 2.5 scatters by about 0.02.
DRAWN = 0.06


def test_one_contrast_has_the_normal_factor() -> None:
    assert critical(np.eye(3), np.array([[1.0, 0, 0]]), 0.95) == pytest.approx(norm.ppf(0.975), abs=1e-12)


def test_unrelated_contrasts_have_sidaks_factor() -> None:
    expected = norm.ppf((1 + 0.95 ** (1 / 8)) / 2)
    assert critical(np.eye(8), np.eye(8), 0.95) == pytest.approx(expected, abs=DRAWN)


def test_all_pairs_of_unrelated_points_have_tukeys_factor() -> None:
    expected = studentized_range.ppf(0.95, 6, np.inf) / np.sqrt(2)
    assert critical(np.eye(6), pairs(6), 0.95) == pytest.approx(expected, abs=DRAWN)


def test_equal_contrasts_cost_nothing() -> None:
    common = np.ones((5, 5))
    assert critical(common, np.eye(5), 0.95) == pytest.approx(norm.ppf(0.975), abs=DRAWN)
    # Differences of equal points have no variance at all: nothing of them is to be told apart.
    assert critical(common, pairs(5), 0.95) == pytest.approx(norm.ppf(0.975), abs=1e-12)


@given(st.integers(2, 9), st.floats(0.8, 0.999), st.integers(0, 99))
def test_the_factor_lies_between_one_contrast_and_bonferroni(m: int, level: float, seed: int) -> None:
    root = np.random.default_rng(seed).standard_normal((m, m))
    factor = critical(root @ root.T, np.eye(m), level)
    assert factor <= norm.ppf(1 - (1 - level) / (2 * m)) + 1e-12
    assert factor >= norm.ppf((1 + level) / 2) - 0.35  # a drawn quantile at 0.999 rests on 20 draws
    assert factor == critical(4 * root @ root.T, np.eye(m), level)  # the unit of the values does not matter


def test_a_standard_error_of_all_there_are_is_zero() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    assert standard_error(values) == pytest.approx(np.std(values, ddof=1) / 2)
    assert standard_error(values, population=16) == pytest.approx(np.std(values, ddof=1) / 2 * np.sqrt(0.75))
    assert standard_error(values, population=4) == 0.0
    assert standard_error(np.array([1.0])) == np.inf


def test_bases_are_what_the_definitions_say() -> None:
    t, values = np.array([0.0, 0.25, 1.0]), np.array([1.0, 7.0, 2.0])
    assert (bases(t, "above_ends") @ values).max(0).tolist() == [2.0, 2.0, 2.0]
    assert (bases(t, "above_mean_of_ends") @ values).tolist() == [[1.5, 1.5, 1.5]]
    assert (bases(t, "above_line") @ values).tolist() == [[1.0, 1.25, 2.0]]
    assert highest(values, t, "above_line") == (5.75, 1)
    with pytest.raises(UsageError, match="from t = 0 to t = 1"):
        bases(t[1:], "above_line")


@pytest.mark.parametrize("definition", ["above_ends", "above_mean_of_ends", "above_line"])
@pytest.mark.parametrize("height", [0.0, 0.02, 1.0])
def test_intervals_of_barriers_hold_as_often_as_they_say(definition: str, height: float) -> None:
    """150 samples from a truth that is known: the exact interval of the share must reach 0.95."""
    draw, t, n = np.random.default_rng(7), np.linspace(0, 1, 9), 400
    mean = 0.3 + 0.05 * t + height * np.exp(-(((t - 0.5) / 0.2) ** 2))
    # Skewed values, correlated along the path as losses are.
    root = np.exp(-np.abs(t[:, None] - t) / 0.5)
    true, _ = highest(mean, t, definition)  # type: ignore[arg-type]
    held = 0
    for _ in range(150):
        values = mean[:, None] + root @ (draw.exponential(size=(9, n)) - 1) * 0.2
        low, high = joint_interval(values.mean(1), np.cov(values), n, t, definition, 0.95)  # type: ignore[arg-type]
        held += low <= true <= high
    assert binomtest(held, 150).proportion_ci(0.95).high >= 0.95


def test_a_barrier_is_never_below_zero_and_never_outside_its_interval() -> None:
    values = np.array([1.0, 0.5, 0.9])
    low, high = joint_interval(values, 0.04 * np.eye(3), 100, np.array([0, 0.5, 1]), "above_ends", 0.95)
    assert low == 0.0
    assert high >= 0.0

"""Barriers to a tolerance: never more than it says, with the probability that it says, for less work."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from closerlook.landscape.certify import FIRST, Race, Request, placed
from closerlook.landscape.intervals import Array, standard_error

T = np.linspace(0, 1, 61)
N = 4000


def losses(height: float, seed: int = 0, n: int = N) -> Array:
    """Losses [61, n] of images: a low floor, and a bump of each image's own height, place and width."""
    draw = np.random.default_rng(seed)
    floor = 0.2 * draw.gamma(0.5, size=n) + 0.05 * T[:, None] * draw.standard_normal(n)
    place, width = 0.5 + 0.08 * draw.standard_normal(n), 0.18 * np.exp(0.2 * draw.standard_normal(n))
    return floor + height * draw.lognormal(0, 0.8, n) * np.exp(-(((T[:, None] - place) / width) ** 2) / 2)


def full(values: Array) -> float:
    means = values.mean(1)
    return float(max(0.0, means.max() - max(means[0], means[-1])))


class Reading:
    """Serves requests from a matrix, and counts."""

    def __init__(self, values: Array, seed: int = 0) -> None:
        self.values = values[:, np.random.default_rng(seed).permutation(values.shape[1])]
        self.read: list[Request] = []

    def __call__(self, requests: Sequence[Request]) -> list[Array]:
        self.read += requests
        return [self.values[point, low:high] for point, low, high in requests]

    @property
    def images(self) -> int:
        return sum(high - low for _, low, high in self.read)


def race(values: Array, tolerance: float = 0.01, seed: int = 0) -> tuple[Race, Reading]:
    reading = Reading(values, seed)
    return Race(T, reading, values.shape[1], tolerance), reading


@pytest.mark.parametrize("height", [0.0, 0.02, 0.2, 1.0, 3.0])
def test_the_interval_is_within_the_tolerance_and_holds(height: float) -> None:
    values, held = losses(height), 0
    for seed in range(25):
        racing, reading = race(values, seed=seed)
        found = racing.run(range(0, 61, 4))
        assert found.low <= found.value <= found.high
        assert max(found.value - found.low, found.high - found.value) <= 0.01
        assert reading.images < values.size / 3
        held += found.low - 1e-12 <= full(values) <= found.high + 1e-12
    assert binomtest(held, 25).proportion_ci(0.95).high >= 0.95


def test_no_image_is_read_twice_at_a_point() -> None:
    racing, reading = race(losses(1.0))
    racing.run(range(0, 61, 4))
    for point in {point for point, _, _ in reading.read}:
        spans = [(low, high) for own, low, high in reading.read if own == point]
        assert spans[0][0] == 0
        assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_a_tolerance_of_nothing_ends_with_the_data_and_is_exact() -> None:
    values = losses(1.0, n=1200)
    racing, _ = race(values, tolerance=1e-9)
    found = racing.run(range(0, 61, 4))
    assert found.value == pytest.approx(full(values), abs=1e-12)
    assert found.high - found.low <= 2e-9


def test_few_images_are_read_at_once() -> None:
    values = losses(0.5, n=FIRST // 2)
    racing, reading = race(values)
    found = racing.run(range(0, 61, 4))
    assert {(low, high) for _, low, high in reading.read} == {(0, FIRST // 2)}
    assert found.value <= full(values) + 1e-12
    assert full(values) <= found.high + 1e-12


def test_a_narrow_peak_between_the_first_points_is_found() -> None:
    values = losses(0.0) + 0.5 * np.exp(-(((T - T[30]) / 0.04) ** 2) / 2)[:, None]  # point 30 is not read at first
    racing, _ = race(values)
    found = racing.run(range(0, 61, 4))
    assert found.t == T[30]
    assert found.low - 1e-12 <= full(values) <= found.high + 1e-12


def test_a_loss_that_is_no_number_ends_the_race_and_is_shown() -> None:
    for bad in (np.nan, np.inf):
        values = losses(0.5)
        values[20] = bad
        found = race(values)[0].run(range(0, 61, 4))
        assert np.isnan(found.value) or np.isinf(found.value)
        assert found.t == T[20]


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0, 2), st.floats(1e-3, 1.0), st.integers(2, 3000))
def test_any_race_ends_with_an_honest_width(seed: int, height: float, tolerance: float, n: int) -> None:
    values = losses(height, seed, n)
    found = race(values, tolerance, seed)[0].run(range(0, 61, 4))
    assert max(found.value - found.low, found.high - found.value) <= tolerance


def test_points_are_placed_by_the_image_they_share() -> None:
    values = losses(1.0, n=2000)
    held = {0: values[0], 29: values[29, :FIRST], 30: values[30], 60: values[60]}
    means, errors = placed(held, (30, 0, 60), 2000)
    assert means[[0, 2, 3]] == pytest.approx(values[[0, 30, 60]].mean(1), abs=1e-12)
    assert errors[[0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    alone = standard_error(values[29, :FIRST], 2000)
    assert errors[1] < alone / 3
    assert abs(means[1] - values[29].mean()) < 4 * errors[1]

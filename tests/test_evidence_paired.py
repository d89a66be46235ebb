"""Intervals, answers and shares of one paired effect: known numbers and invariances."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from closerlook.errors import UsageError
from closerlook.evidence import half_width, paired_effect, t_interval
from closerlook.evidence.paired import sides

DIFFERENCES = st.lists(st.integers(-50, 50).map(lambda k: k / 64), min_size=3, max_size=9)


def by_seed(values: list[float]) -> dict[str, float | None]:
    return {str(100 + index): value for index, value in enumerate(values)}


@pytest.mark.parametrize(("n", "expected"), [(3, 1.69), (5, 0.95), (8, 0.67)])
def test_half_width_in_standard_deviations(n: int, expected: float) -> None:
    assert half_width(n) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("level", [0.9, 0.95, 1 - 0.1 / 6])
def test_interval_is_scipys(level: float) -> None:
    values = np.random.default_rng(0).normal(size=(4, 5))
    low, high = t_interval(values, level)
    for row, ends in zip(values, zip(low, high, strict=True), strict=True):
        assert ends == pytest.approx(stats.ttest_1samp(row, 0).confidence_interval(level))


def test_effect_by_hand() -> None:
    # mean 2, standard deviation 1, t(0.95; 2) = 2.919986: half-width 2.919986 / sqrt(3) = 1.685854
    found = paired_effect({"100": 1.0, "101": 2.0, "102": 3.0}, margin=0.25)
    interval = found.intervals[0]
    assert (interval.low, interval.high) == pytest.approx((0.314146, 3.685854), abs=1e-6)
    assert found.smallest_decidable == pytest.approx(1.935854, abs=1e-6)
    assert (found.answer, found.n, found.mean, found.sd) == ("yes", 3, 2.0, 1.0)


@pytest.mark.parametrize(("margin", "answer"), [(0.31, "yes"), (0.32, "open"), (3.68, "open"), (3.69, "no")])
def test_answers_on_both_sides_of_the_interval(margin: float, answer: str) -> None:
    assert paired_effect(by_seed([1.0, 2.0, 3.0]), margin).answer == answer


def test_shares_on_each_side_leave_out_ties() -> None:
    shares = paired_effect(by_seed([-0.1, 0.0, 0.2, 0.6]), margin=0.2).shares
    assert (shares.above_margin, shares.below_margin) == (0.25, 0.5)
    assert (shares.above_zero, shares.below_zero) == (0.5, 0.25)


def test_each_level_has_its_answer() -> None:
    found = paired_effect(by_seed([1.0, 2.0, 3.0]), margin=0.25, levels=(0.95, 0.9))
    assert [interval.level for interval in found.intervals] == [0.9, 0.95]
    assert [(each.level, each.answer) for each in found.intervals] == [(0.9, "yes"), (0.95, "open")]


@pytest.mark.parametrize("gap", [None, math.nan, math.inf])
def test_a_missing_value_leaves_the_part_open(gap: float | None) -> None:
    found = paired_effect({"100": 9.0, "101": 9.1, "102": 9.2, "103": gap}, margin=0.0)
    assert (found.answer, found.n, found.values["103"]) == ("open", 3, None)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_seeds_answer_nothing(n: int) -> None:
    found = paired_effect(by_seed([5.0 + 0.1 * index for index in range(n)]), margin=0.0)
    assert (found.answer, found.n) == ("open", n)
    assert (found.intervals[0].low is None) == (n < 2)
    assert (found.mean is None, found.shares.above_zero) == ((True, None) if n == 0 else (False, 1.0))


@pytest.mark.parametrize(("n", "answer"), [(3, "open"), (4, "open"), (5, "yes"), (8, "yes")])
def test_equal_differences_need_five_seeds(n: int, answer: str) -> None:
    found = paired_effect(by_seed([0.3] * n), margin=0.1)
    assert found.answer == answer
    assert found.intervals[0].low == pytest.approx(0.3)
    assert found.intervals[0].high == pytest.approx(0.3)


def test_touching_the_margin_is_open_whatever_the_rounding() -> None:
    rounded = [0.915 - 0.91] * 5
    assert rounded[0] > 0.005
    assert paired_effect(by_seed(rounded), margin=0.005).answer == "open"


@pytest.mark.parametrize(("margin", "levels"), [(math.nan, (0.9,)), (0.0, ()), (0.0, (1.0,)), (0.0, (0.0,))])
def test_margin_and_levels_are_checked(margin: float, levels: tuple[float, ...]) -> None:
    with pytest.raises(UsageError):
        paired_effect(by_seed([1.0, 2.0, 3.0]), margin, levels)


def test_one_value_has_no_interval() -> None:
    with pytest.raises(UsageError, match="at least 2 paired values, not 1; run more seeds"):
        t_interval([0.1])


@settings(max_examples=60, deadline=None)
@given(DIFFERENCES, st.randoms(use_true_random=False))
def test_order_of_the_seeds_does_not_matter(values: list[float], random: "np.random.Generator") -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    first, second = (paired_effect(by_seed(each), 0.1) for each in (values, shuffled))
    assert first.answer == second.answer
    assert first.smallest_decidable == pytest.approx(second.smallest_decidable)
    assert first.shares == second.shares


@settings(max_examples=60, deadline=None)
@given(DIFFERENCES, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_does_not_matter(values: list[float], scale: float) -> None:
    plain = paired_effect(by_seed(values), 0.125)
    scaled = paired_effect(by_seed([scale * value for value in values]), scale * 0.125)
    assert scaled.answer == plain.answer
    assert scaled.mean == pytest.approx(scale * plain.mean)
    assert scaled.smallest_decidable == pytest.approx(scale * plain.smallest_decidable)


@settings(max_examples=60, deadline=None)
@given(DIFFERENCES)
def test_yes_and_no_are_mirror_images(values: list[float]) -> None:
    array = np.array(values)
    assert sides(array, 0.125) == -sides(-array, -0.125)


@settings(max_examples=60, deadline=None)
@given(DIFFERENCES)
def test_a_wider_interval_never_says_more(values: list[float]) -> None:
    narrow, wide = (int(sides(values, 0.125, level)) for level in (0.9, 0.95))
    assert wide in (narrow, 0)

"""Schedules against their formulas, and durations against a table."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from closerlook.durations import Clock, to_steps
from closerlook.errors import UsageError
from closerlook.schedules import Constant, Cosine, Held, LinearDecay, Restarts, Schedule, StepDecay, Then, Warmup

CLOCK = Clock(steps_per_epoch=7, total_steps=700)
# A factor is one or two operations in float64: rounding stays far below this.
EXACT = 1e-12


def factors(schedule: Schedule, clock: Clock = CLOCK) -> list[float]:
    at = schedule.factor(clock)
    return [at(step) for step in range(clock.total_steps)]


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("40ep", 280), (" 1.5 ep ", 10), ("0ep", 0), ("500it", 500), ("2e2it", 200), ("1e-1dur", 70),
        ("0.7dur", 490), ("1dur", 700), (3, 21), (0, 0),
    ],
)  # fmt: skip
def test_a_duration_is_a_number_of_steps(duration: str | int, steps: int) -> None:
    assert to_steps(duration, CLOCK) == steps


@pytest.mark.parametrize("text", ["", "40", "ep", "-3ep", "3 epochs", "1,5ep", "0.7 dur!", "nanit", None, 0.5])
def test_an_unreadable_duration_is_quoted_with_the_forms_that_can_be_read(text: object) -> None:
    with pytest.raises(UsageError, match=r"40ep.*500it.*0\.7dur") as error:
        to_steps(text, CLOCK)  # type: ignore[arg-type]
    assert repr(text) in str(error.value)


@given(st.floats(0, 1000), st.integers(1, 50), st.integers(1, 10_000))
def test_a_duration_is_rounded_to_the_nearest_step(number: float, per_epoch: int, total: int) -> None:
    clock = Clock(per_epoch, total)
    for unit, length in {"ep": per_epoch, "it": 1, "dur": total}.items():
        text = f"{number:.6f}"
        assert abs(to_steps(text + unit, clock) - float(text) * length) <= 0.5


def sgdr(first: int, mult: int, total: int, final: float = 0.0) -> list[float]:
    """Loshchilov and Hutter's procedure, with its two counters."""
    length, since, values = first, 0, []
    for _ in range(total):
        values.append(final + (1 - final) / 2 * (1 + math.cos(since / length * math.pi)))
        since += 1
        if since == length:
            since, length = 0, length * mult
    return values


@given(st.integers(1, 40), st.integers(1, 4), st.sampled_from([0.0, 0.01, 0.3]))
def test_restarts_follow_the_formula_at_every_step(first: int, mult: int, final: float) -> None:
    schedule = Restarts(first=f"{first}it", mult=mult, final=final)
    clock = Clock(5, 200)
    values = factors(schedule, clock)
    assert np.allclose(values, sgdr(first, mult, 200, final), rtol=0, atol=EXACT)
    starts = [0, *schedule.ends(clock)]
    # Each cycle begins at the full rate, falls all the way, and its last step is its lowest.
    for start, end in pairwise(starts):
        cycle = values[start:end]
        assert cycle[0] == 1.0
        assert cycle == sorted(cycle, reverse=True)
        assert end == 200 or schedule.factor(clock)(end) == 1.0


def test_restarts_equal_those_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)
    rates = []
    for _ in range(150):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert factors(Restarts(first="10it", mult=2), Clock(1, 150)) == pytest.approx(rates, abs=EXACT)


def test_the_floors_of_the_paper_are_at_epochs_10_30_70_150() -> None:
    clock = Clock(steps_per_epoch=13, total_steps=13 * 150)
    assert Restarts(first="10ep", mult=2).ends(clock) == [13 * epoch for epoch in (10, 30, 70, 150)]
    # A cycle that the run cuts short has no floor.
    assert Restarts(first="10ep", mult=2).ends(Clock(13, 13 * 149)) == [13 * epoch for epoch in (10, 30, 70)]
    assert Restarts(first="50ep", mult=1).ends(clock) == [13 * epoch for epoch in (50, 100, 150)]


def public_code(epochs: int) -> list[float]:
    """The authors' loop over epochs: a cycle ends when the rate has become the smallest, not before it."""
    rates, since, length = [], 0, 10
    for _ in range(epochs):
        rates.append((1 + math.cos(since / length * math.pi)) / 2)
        since += 1
        if rates[-1] == 0.0:
            since, length = 0, 2 * length
    return rates


def test_one_epoch_of_rest_held_for_each_epoch_is_the_public_code() -> None:
    clock = Clock(steps_per_epoch=3, total_steps=3 * 200)
    cycles = Restarts(first="10ep", rest="1ep")
    rates = factors(Held(cycles), clock)
    assert rates[::3] == pytest.approx(public_code(200), abs=EXACT)
    assert all(rates[step] == rates[step - step % 3] for step in range(600))
    assert [epoch for epoch in range(200) if rates[3 * epoch] == 1.0] == [0, 11, 32, 73, 154]
    assert cycles.ends(clock) == [3 * epoch for epoch in (11, 32, 73, 154)]
    assert all(rates[end - 1] == 0.0 for end in cycles.ends(clock))


@given(st.integers(1, 20), st.integers(0, 5), st.sampled_from([0.0, 0.3]))
def test_a_rest_is_put_between_the_cycles_and_changes_nothing_in_them(first: int, rest: int, final: float) -> None:
    clock = Clock(1, 120)
    plain, rested = Restarts(f"{first}it", final=final), Restarts(f"{first}it", final=final, rest=f"{rest}it")
    expected: list[float] = []
    for start, end in pairwise([0, *plain.ends(clock)]):
        expected += [plain.factor(clock)(step) for step in range(start, end)] + [final] * rest
    length = min(len(expected), 120)
    assert factors(rested, clock)[:length] == pytest.approx(expected[:length], abs=EXACT)


def test_held_takes_the_value_at_the_begin_of_each_span() -> None:
    assert factors(Held(Cosine(), every="5it")) == [factors(Cosine())[step - step % 5] for step in range(700)]
    assert factors(Held(Cosine(), every="1it")) == factors(Cosine())
    with pytest.raises(UsageError, match="cannot be held for 0 steps"):
        Held(Cosine(), every="0it").factor(CLOCK)


@pytest.mark.parametrize("broken", [Restarts("0it"), Restarts("10it", mult=0)])
def test_cycles_that_never_end_are_refused(broken: Restarts) -> None:
    with pytest.raises(UsageError, match="never ends"):
        broken.factor(CLOCK)


def test_cosine_is_one_cycle_over_the_whole_run() -> None:
    assert factors(Cosine(final=0.1)) == pytest.approx(sgdr(700, 1, 700, final=0.1), abs=EXACT)
    assert Cosine(final=0.1).factor(CLOCK)(700) == pytest.approx(0.1, abs=EXACT)


def test_step_decay_drops_at_its_times_and_not_before() -> None:
    at = StepDecay(at=("60ep", "0.8dur"), gamma=0.1).factor(CLOCK)
    assert [at(step) for step in (0, 419, 420, 559, 560, 699)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01], abs=EXACT)


def test_linear_decay_of_the_curves_is_flat_then_straight_then_flat() -> None:
    at = LinearDecay(begin="0.5dur", end="0.9dur", final=0.01).factor(Clock(1, 100))
    for step in range(101):
        expected = 1.0 if step <= 50 else 0.01 if step >= 90 else 1 - 0.99 * (step - 50) / 40
        assert at(step) == pytest.approx(expected, abs=EXACT)


def test_linear_decay_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(UsageError, match="step 350, not after its begin at step 490"):
        LinearDecay(begin="0.7dur", end="0.5dur").factor(CLOCK)


def test_warmup_is_a_ramp_times_the_schedule_after_it() -> None:
    warm, cool = factors(Warmup("10ep", after=Cosine(), start=0.2)), factors(Cosine())
    for step in range(700):
        ramp = min(1.0, 0.2 + 0.8 * step / 70)
        assert warm[step] == pytest.approx(ramp * cool[step], abs=EXACT)
    assert factors(Warmup(0)) == factors(Constant())


def test_then_starts_a_new_clock() -> None:
    chained = Restarts("10ep").then(LinearDecay(final=0.1), at="30ep").then(Constant(0.5), at="0.9dur")
    assert isinstance(chained, Then)
    values = factors(chained)
    assert values[:210] == factors(Restarts("10ep"))[:210]
    # The decay's own run is what is left after step 210: its length "1dur" ends with the whole run.
    assert values[210:630] == pytest.approx([1 - 0.9 * step / 490 for step in range(420)], abs=EXACT)
    assert set(values[630:]) == {0.5}


def test_a_switch_after_the_end_leaves_the_first_schedule_alone() -> None:
    assert factors(Cosine().then(Constant(9.0), at="200ep")) == factors(Cosine())

"""Learning-rate schedules: pure functions of the step, as factors of the optimizer's own learning rate.

A schedule is plain frozen data, so that a recipe can store it; ``schedule.factor(clock)`` gives the
function from step to factor. Lengths are durations (``"40ep"``, ``"500it"``, ``"0.7dur"``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast

from closerlook.durations import Clock, Duration, to_steps
from closerlook.errors import UsageError

Factor = Callable[[int], float]


class _Chained:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def then(self, second: "Schedule", *, at: Duration) -> "Then":
        """This schedule until `at`, then `second` on a clock that starts there."""
        return Then(first=cast("Schedule", self), at=at, second=second)


@dataclass(frozen=True)
class Constant(_Chained):
    """One factor throughout.

    Examples
    --------
    >>> Constant(0.5).factor(Clock(10, 100))(7)
    0.5
    """

    value: float = 1.0
    kind: Literal["constant"] = "constant"

    def factor(self, clock: Clock) -> Factor:
        """Function from step to factor."""
        return lambda step: self.value


@dataclass(frozen=True)
class StepDecay(_Chained):
    """Multiply by `gamma` at each of the given times.

    Examples
    --------
    >>> [StepDecay(at=("4it",), gamma=0.1).factor(Clock(10, 100))(step) for step in (3, 4)]
    [1.0, 0.1]
    """

    at: tuple[Duration, ...]
    gamma: float = 0.1
    kind: Literal["step_decay"] = "step_decay"

    def factor(self, clock: Clock) -> Factor:
        """Function from step to factor."""
        drops = [to_steps(time, clock) for time in self.at]
        return lambda step: self.gamma ** sum(step >= drop for drop in drops)


@dataclass(frozen=True)
class LinearDecay(_Chained):
    """`start` until `begin`, linear to `final` at `end`, `final` afterwards.

    ``LinearDecay(begin="0.5dur", end="0.9dur", final=0.01)`` is the schedule of Garipov et al. 2018
    (arXiv 1802.10026) for curves.

    Examples
    --------
    >>> LinearDecay(begin="50it", end="90it", final=0.0).factor(Clock(10, 100))(70)
    0.5
    """

    start: float = 1.0
    final: float = 0.0
    begin: Duration = "0ep"
    end: Duration = "1dur"
    kind: Literal["linear_decay"] = "linear_decay"

    def factor(self, clock: Clock) -> Factor:
        """Function from step to factor."""
        begin, end = to_steps(self.begin, clock), to_steps(self.end, clock)
        if end <= begin:
            raise UsageError(f"linear decay ends at step {end}, not after its begin at step {begin}; move 'end' later")

        def at(step: int) -> float:
            share = min(max((step - begin) / (end - begin), 0.0), 1.0)
            return self.start + share * (self.final - self.start)

        return at


def _cosine(share: float, final: float) -> float:
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class Cosine(_Chained):
    """Half a cosine from 1 to `final` over the whole run.

    ``final + (1 - final) (1 + cos(pi step / total)) / 2``, Loshchilov and Hutter 2017 (arXiv 1608.03983),
    eq. 5, with one cycle.

    Examples
    --------
    >>> Cosine().factor(Clock(10, 100))(50)
    0.5
    """

    final: float = 0.0
    kind: Literal["cosine"] = "cosine"

    def factor(self, clock: Clock) -> Factor:
        """Function from step to factor."""
        return lambda step: _cosine(min(step / clock.total_steps, 1.0), self.final)


@dataclass(frozen=True)
class Restarts(_Chained):
    """Cosine annealing with warm restarts, set at every step.

    Cycles of `first`, `first` x `mult`, `first` x `mult`^2, ...; within a cycle of n steps the factor is
    ``final + (1 - final) (1 + cos(pi i / n)) / 2`` for i = 0 .. n - 1. Loshchilov and Hutter 2017
    (arXiv 1608.03983), eq. 5. After each cycle it stays at `final` for `rest` before the next one begins.

    Examples
    --------
    >>> at = Restarts(first="1ep", mult=2).factor(Clock(10, 70))
    >>> [at(step) for step in (0, 10, 30)]
    [1.0, 1.0, 1.0]
    """

    first: Duration
    mult: int = 2
    final: float = 0.0
    rest: Duration = 0
    kind: Literal["restarts"] = "restarts"

    def ends(self, clock: Clock) -> list[int]:
        """Steps at which the cycles within the run end, each with its rest: the floors."""
        length, rest, ends = to_steps(self.first, clock), to_steps(self.rest, clock), list[int]()
        if length < 1 or self.mult < 1:
            raise UsageError(f"a cycle of {length} steps times {self.mult} never ends; both must be at least 1")
        end = length + rest
        while end <= clock.total_steps:
            ends.append(end)
            length *= self.mult
            end += length + rest
        return ends

    def factor(self, clock: Clock) -> Factor:
        """Function from step to factor."""
        ends = self.ends(clock)

        def at(step: int) -> float:
            start = max((end for end in ends if end <= step), default=0)
            cycle = to_steps(self.first, clock) * self.mult ** sum(end <= step for end in ends)
            return _cosine(min((step - start) / cycle, 1.0), self.final)

        return at


@dataclass(frozen=True)
class Warmup(_Chained):
    """A linear ramp from `start` to 1 over `length`, multiplied onto the schedule `after`.

    At step i of n the ramp is ``start + (1 - start) i / n``: with start 0 the first step has factor 0.
    Goyal et al. 2017 (arXiv 1706.02677), section 2.2.

    Examples
    --------
    >>> [Warmup("10it").factor(Clock(10, 100))(step) for step in (0, 5, 10, 50)]
    [0.0, 0.5, 1.0, 1.0]
    """

    length: Duration
    after: "Schedule" = field(default_factory=Constant)
    start: float = 0.0
    kind: Literal["warmup"] = "warmup"

    def factor(self, clock: Clock) -> Factor:
        """Function from step to factor."""
        steps, after = to_steps(self.length, clock), self.after.factor(clock)
        return lambda step: after(step) * (1.0 if step >= steps else self.start + (1 - self.start) * step / steps)


@dataclass(frozen=True)
class Then(_Chained):
    """`first` until `at`, then `second`, whose clock starts there.

    Examples
    --------
    >>> at = Constant().then(LinearDecay(), at="60it").factor(Clock(10, 100))
    >>> [at(step) for step in (59, 60, 80)]
    [1.0, 1.0, 0.5]
    """

    first: "Schedule"
    at: Duration
    second: "Schedule"
    kind: Literal["then"] = "then"

    def factor(self, clock: Clock) -> Factor:
        """Function from step to factor."""
        switch = to_steps(self.at, clock)
        first = self.first.factor(clock)
        second = self.second.factor(Clock(clock.steps_per_epoch, max(clock.total_steps - switch, 1)))
        return lambda step: first(step) if step < switch else second(step - switch)


@dataclass(frozen=True)
class Held(_Chained):
    """`inner`, set only once every `every` and held in between, as by a loop that sets the rate at each epoch's begin.

    Examples
    --------
    >>> at = Held(Cosine(), every="1ep").factor(Clock(10, 100))
    >>> [at(step) for step in (49, 50, 59)] == [Cosine().factor(Clock(10, 100))(step) for step in (40, 50, 50)]
    True
    """

    inner: "Schedule"
    every: Duration = "1ep"
    kind: Literal["held"] = "held"

    def factor(self, clock: Clock) -> Factor:
        """Function from step to factor."""
        length, inner = to_steps(self.every, clock), self.inner.factor(clock)
        if length < 1:
            raise UsageError(f"a rate cannot be held for {length} steps; 'every' must be at least one step")
        return lambda step: inner(step - step % length)


Schedule = Constant | StepDecay | LinearDecay | Cosine | Restarts | Warmup | Then | Held

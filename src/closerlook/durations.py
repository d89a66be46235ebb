"""Lengths of training as text: ``"40ep"`` epochs, ``"500it"`` steps, ``"0.7dur"`` a share of the whole run."""

import re
from dataclasses import dataclass

from closerlook.errors import UsageError

Duration = str | int
_FORM = re.compile(r"\s*(\d+(?:\.\d+)?(?:e-?\d+)?)\s*(ep|it|dur)\s*")


@dataclass(frozen=True)
class Clock:
    """What turns a duration into steps: the steps of an epoch and of the whole run."""

    steps_per_epoch: int
    total_steps: int


def to_steps(duration: Duration, clock: Clock) -> int:
    """Number of steps of a duration, rounded to the nearest step; a bare integer counts epochs.

    Raises
    ------
    UsageError
        The text is not a number followed by ``ep``, ``it`` or ``dur``.

    Examples
    --------
    >>> to_steps("2ep", Clock(steps_per_epoch=100, total_steps=1000))
    200
    >>> to_steps("0.7dur", Clock(steps_per_epoch=100, total_steps=1000))
    700
    """
    if isinstance(duration, int):
        return duration * clock.steps_per_epoch
    match = _FORM.fullmatch(str(duration))
    if match is None:
        raise UsageError(f"cannot read the duration {duration!r}; write '40ep', '500it' or '0.7dur'")
    unit = {"ep": clock.steps_per_epoch, "it": 1, "dur": clock.total_steps}[match[2]]
    return round(float(match[1]) * unit)

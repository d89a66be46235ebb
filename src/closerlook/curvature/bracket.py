"""Where a function of one variable first rises above its value at 0: doubling, then bisection."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

HALVINGS = 40
ROUNDING = 4 * sys.float_info.epsilon  # no bracket gets narrower


@dataclass(frozen=True)
class Bracket:
    """The smallest learning rate found at which the loss rises: between `low`, where it does not, and `high`.

    `value` is the middle; infinite with `high` when the loss did not rise up to `low`, 0 where it rises at once; `note`
    says so. `forward_passes` counts the losses that were read.
    """

    value: float
    low: float
    high: float
    forward_passes: int
    note: str = ""


def first_rise(
    loss_at: Callable[[float], float], base: float, *, start: float, limit: float, tolerance: float
) -> Bracket:
    """Bracket the smallest eta where ``loss_at(eta) > base``, a relative `tolerance` wide.

    From `start` eta is doubled until the loss is higher (or halved until it is not), then the interval is halved. A
    rise and fall between two doublings is not seen. What is not finite counts as higher.

    Examples
    --------
    >>> found = first_rise(lambda eta: (1 - eta) ** 2, 1.0, start=0.3, limit=100, tolerance=0.001)
    >>> found.low <= 2 <= found.high, round(found.value, 2)
    (True, 2.0)
    """
    seen = 0

    def rises(eta: float) -> bool:
        nonlocal seen
        seen += 1
        return not loss_at(eta) <= base

    low, high = (0.0, start) if rises(start) else (start, math.inf)
    while math.isinf(high):
        if 2 * low > limit:
            return Bracket(math.inf, low, math.inf, seen, f"the loss does not rise up to {low:g}")
        low, high = (low, 2 * low) if rises(2 * low) else (2 * low, math.inf)
    while low == 0:
        if high < start / 2**HALVINGS:
            return Bracket(0.0, 0.0, high, seen, f"the loss rises from {high:g} on, the smallest that was tried")
        low, high = (0.0, high / 2) if rises(high / 2) else (high / 2, high)
    while high - low > max(tolerance, ROUNDING) * low:
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) else (middle, high)
    return Bracket((low + high) / 2, low, high, seen)

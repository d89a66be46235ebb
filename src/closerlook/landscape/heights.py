"""What a barrier is: heights above a base, as contrasts between points of a path, and their joint interval."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from closerlook.errors import UsageError
from closerlook.landscape.intervals import Array, critical

Definition = Literal["above_ends", "above_mean_of_ends", "above_line"]


@dataclass(frozen=True)
class Barrier:
    """The height of a barrier, where it stands, and what a reader must know to compare it with another.

    ``low`` and ``high`` hold for the highest of all points at once, with probability `level`. They are about other
    images of the same kind (`interval_of` ``"population"``), or, where a part of the images was read, about the
    reading of all of them (``"loader"``). They say nothing of other seeds.
    """

    value: float
    t: float
    metric: str
    split: str
    definition: Definition
    points: int
    batch_stats: str
    dtype: str
    precision: str
    low: float | None = None
    high: float | None = None
    level: float | None = None
    interval_of: Literal["population", "loader"] | None = None

    def __float__(self) -> float:
        """The height, in the metric's unit."""
        return self.value

    def to_dict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def bases(t: Array, definition: Definition) -> Array:
    """Weights [r, m, m] of the base under each of m points; the height is the least of the r heights above them.

    Raises
    ------
    UsageError
        An unknown definition, or points that do not reach from t = 0 to t = 1.
    """
    if definition not in get_args(Definition):
        raise UsageError(f"unknown barrier {definition!r}; choose one of {', '.join(get_args(Definition))}")
    if t[0] != 0 or t[-1] != 1:
        raise UsageError("a barrier needs both ends: a profile from t = 0 to t = 1")
    first, last = np.zeros((2, len(t), len(t)))
    first[:, 0], last[:, -1] = 1.0, 1.0
    if definition == "above_ends":
        return np.stack([first, last])
    share = t[:, None] if definition == "above_line" else np.full((len(t), 1), 0.5)
    return ((1 - share) * first + share * last)[None]


def highest(values: Array, t: Array, definition: Definition) -> tuple[float, int]:
    """The barrier of values [m] of which more is worse, and the number of its point."""
    heights = values - (bases(t, definition) @ values).max(0)
    top = int(np.argmax(heights))
    return float(heights[top]), top


def joint_interval(values: Array, covariance: Array, n: int, t: Array, definition: Definition, level: float) -> Array:
    """Low and high end [2] of an interval of the barrier, from n examples with this covariance [m, m]."""
    contrasts = (np.eye(len(t)) - bases(t, definition)).reshape(-1, len(t))
    factor = critical(covariance, contrasts, level)
    spread = np.einsum("ki,ij,kj->k", contrasts, covariance, contrasts)
    widths = factor * np.sqrt(np.maximum(spread, 0) / n)
    estimates = contrasts @ values
    sides = np.stack([estimates - widths, estimates + widths]).reshape(2, -1, len(t))
    ends = sides.min(1).max(1)
    # The ends belong to the path: measured from them no barrier is below 0.
    return ends if definition == "above_mean_of_ends" else np.maximum(ends, 0.0)

"""Curves along paths in weight space: the straight segment against the trained curve."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from closerlook.figures.seeds import Seed, seed_lines
from closerlook.figures.style import legend_above, look, panels, wrapped


def aligned(lines: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Lines with positions of their own at the positions of all of them, interpolated.

    Examples
    --------
    >>> t, (one, other) = aligned([([0, 1], [0, 4]), ([0, 0.5, 1], [1, 2, 1])])
    >>> t.tolist(), one.tolist(), other.tolist()
    ([0.0, 0.5, 1.0], [0.0, 2.0, 4.0], [1.0, 2.0, 1.0])
    """
    t = np.unique(np.concatenate([np.empty(0), *(np.asarray(own, dtype=float) for own, _ in lines)]))
    return t, [np.interp(t, np.asarray(own), np.asarray(values)) for own, values in lines]


def path(
    t: ArrayLike,
    segment_by_seed: Mapping[Seed, ArrayLike],
    curve_by_seed: Mapping[Seed, ArrayLike],
    ylabel: str = "loss (nats)",
    bands: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    ax: Axes | None = None,
) -> Axes:
    """Plot a metric along the straight segment and along the trained curve between the same two points.

    Parameters
    ----------
    t
        Positions, [m]: 0 at the first end, 1 at the second.
    segment_by_seed, curve_by_seed
        The metric of each seed, [m]; either may be empty.
    ylabel
        Quantity and unit.
    bands
        Low and high ends [m] of intervals, shaded behind the lines.
    ax
        Where to draw; made if not given.

    Examples
    --------
    >>> path([0, 0.5, 1], {100: [0.1, 2.0, 0.1]}, {100: [0.1, 0.2, 0.1]}).get_ylabel()
    'loss (nats)'
    """
    ax = ax or panels()[0]
    for low, high in bands:
        ax.fill_between(np.asarray(t), np.asarray(low), np.asarray(high), color="0.85", linewidth=0)
    # Vermilion and dashed for the segment, blue and solid for the curve, whichever of the two is there.
    for index, name, by_seed in ((1, "straight segment", segment_by_seed), (0, "trained curve", curve_by_seed)):
        if by_seed:
            seed_lines(ax, t, list(by_seed.values()), look(index), name)
    ax.set_xlabel("position t on the path (0 to 1)")
    ax.set_ylabel(wrapped(ylabel, ax, 0.65))
    legend_above(ax)
    return ax


def segments(
    t: ArrayLike,
    lines_by_arm: Mapping[str, Mapping[Seed, ArrayLike]],
    ylabel: str = "loss (nats)",
    ax: Axes | None = None,
) -> Axes:
    """Plot a metric along straight segments, one colour per arm.

    Parameters
    ----------
    t
        Positions, [m]: 0 at the first end, 1 at the second.
    lines_by_arm
        The metric of each seed, [m], by arm.
    ylabel
        Quantity and unit.
    ax
        Where to draw; made if not given.

    Examples
    --------
    >>> segments([0, 0.5, 1], {"R": {100: [0.1, 2.0, 0.1]}}).get_ylabel()
    'loss (nats)'
    """
    ax = ax or panels()[0]
    for index, (arm, by_seed) in enumerate(lines_by_arm.items()):
        seed_lines(ax, t, list(by_seed.values()), look(index), arm)
    ax.set_xlabel("position t on the segment (0 to 1)")
    ax.set_ylabel(wrapped(ylabel, ax, 0.65))
    legend_above(ax)
    return ax

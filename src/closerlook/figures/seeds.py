"""Lines of several seeds: each a thin one, their mean a thick one."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from closerlook.errors import UsageError
from closerlook.figures.style import Look, plain

Seed = int | str


def seed_lines(
    ax: Axes, x: ArrayLike, lines: Sequence[ArrayLike], style: Look, label: str, markers: bool = True, log: bool = False
) -> None:
    """Draw every seed as a thin line and their mean as a thick one.

    Parameters
    ----------
    ax
        Where to draw.
    x
        Positions, [n].
    lines
        One array [n] or shorter per seed, at least one; a run that ended early is shorter.
    style
        Colour, dash pattern and marker.
    label
        Name in the legend.
    markers
        Whether the mean carries about eight markers.
    log
        Whether the axis is logarithmic: the mean is the geometric one, what is not finite and positive leaves a gap.

    Raises
    ------
    UsageError
        No lines, or one that is longer than the positions.
    """
    if not lines:
        raise UsageError(f"{label} has no line; give one per seed, or leave it out")
    x = np.asarray(x, dtype=float)
    padded = np.full((len(lines), len(x)), np.nan)
    for row, line in zip(padded, lines, strict=True):
        values = np.asarray(line, dtype=float)
        if len(values) > len(x):
            raise UsageError(f"{label} has {len(values)} values at {len(x)} positions; give at most one for each")
        row[: len(values)] = values
    if log:
        padded[~(np.isfinite(padded) & (padded > 0))] = np.nan
    if len(lines) > 1:
        ax.plot(x, padded.T, color=style.color, linewidth=0.7, alpha=0.65)
    # A plain mean, not a nanmean: where a seed is missing the mean of the others would be another quantity.
    mean = np.exp(np.log(padded).mean(axis=0)) if log else padded.mean(axis=0)
    ax.plot(
        x, mean, color=style.color, linestyle=style.dash, linewidth=2.0, label=plain(label),
        marker=style.marker if markers else None, markersize=5, markevery=max(1, len(x) // 8),
    )  # fmt: skip


def as_lines(values: ArrayLike) -> list[NDArray[np.float64]]:
    """Split an array [n] or [seeds, n] into one line per seed."""
    return list(np.atleast_2d(np.asarray(values, dtype=float)))

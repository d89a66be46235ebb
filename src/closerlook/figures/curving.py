"""What curve training does: a metric along the path at several times, and the points in two dimensions."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from closerlook.figures.seeds import Seed, seed_lines
from closerlook.figures.style import (
    HALO,
    INK,
    by_depth,
    font_size,
    label_x,
    label_y,
    legend_of_figure,
    look,
    panels,
    plain,
)


def along(
    lines_by_time: Mapping[str, tuple[ArrayLike, Mapping[Seed, ArrayLike]]],
    ylabel: str = "training accuracy (%)",
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Plot a metric along a path at several times of its training, from the straight segment on.

    Parameters
    ----------
    lines_by_time
        Per time its positions t [m] and the metric of each seed, [m]; dark is early, light is late.
    ylabel
        Quantity and unit.
    title
        Which path.
    ax
        Where to draw; made if not given.

    Examples
    --------
    >>> along({"segment": ([0, 0.5, 1], {100: [90.0, 10.0, 90.0]})}).get_ylabel()
    'training accuracy (%)'
    """
    ax = ax or panels()[0]
    for index, (time, (t, by_seed)) in enumerate(lines_by_time.items()):
        seed_lines(ax, t, list(by_seed.values()), by_depth(index, len(lines_by_time)), time)
    ax.set_title(plain(title), loc="left", fontsize=font_size(ax))
    label_x(ax, "position t on the path")
    label_y(ax, ylabel)
    return ax


def one_legend_for(axes: list[Axes]) -> Axes:
    """Name the lines of all these axes once, above the figure; returns the first."""
    legend_of_figure(axes[0])
    return axes[0]


def embedding(
    modes: Mapping[str, ArrayLike],
    bends: Mapping[str, ArrayLike],
    curves: Mapping[str, ArrayLike],
    xlabel: str,
    ylabel: str,
    ax: Axes | None = None,
) -> Axes:
    """Plot networks, bends of curves and points on the curves in two dimensions.

    Parameters
    ----------
    modes, bends
        Coordinates [2] or [1, 2] of each network, and of the bend of each curve.
    curves
        Coordinates [m, 2] of points on the curve to each network.
    xlabel, ylabel
        What the axes mean.
    ax
        Where to draw; made if not given.

    Examples
    --------
    >>> embedding({"G": [0, 0]}, {"A": [1, 1]}, {"A": [[0, 0], [1, 1]]}, "one", "two").get_xlabel()
    'one'
    """
    ax = ax or panels(height=4.2)[0]
    for index, (name, points) in enumerate(curves.items()):
        x, y = np.asarray(points, dtype=float).T
        ax.plot(x, y, color=look(index).color, marker=".", markersize=4, linewidth=1.0, alpha=0.8)
        x, y = np.asarray(bends[name], dtype=float).reshape(2)
        ax.plot(x, y, color=look(index).color, marker="x", markersize=7, markeredgewidth=1.8, linestyle="none")
    for name, point in modes.items():
        x, y = np.asarray(point, dtype=float).reshape(2)
        ax.plot(x, y, color=INK, marker="o", markersize=5)
        ax.annotate(
            plain(name), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=font_size(ax), path_effects=HALO
        )
    label_x(ax, xlabel)
    label_y(ax, ylabel)
    ax.margins(0.12)
    return ax

"""Grouped dots: what averaging or ensembling the same weights brings, per arm and seed."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from closerlook.figures.seeds import Seed
from closerlook.figures.style import legend_above, look, panels, plain, wrapped


def gains(
    labels: Sequence[str],
    values_by_arm_and_seed: Mapping[str, Mapping[Seed, ArrayLike]],
    ax: Axes | None = None,
    *,
    ylabel: str = "validation accuracy (%)",
) -> Axes:
    """Plot accuracy per way of combining weights, side by side for each arm, with every seed.

    Parameters
    ----------
    labels
        The ways, such as last floor, averaged floors, ensembled floors; k of them.
    values_by_arm_and_seed
        Accuracy in [0, 1], [k] per arm and seed; NaN where a value is missing.
    ax
        Where to draw; made if not given.
    ylabel
        Label of the axis, which shows percent.

    Returns
    -------
    Axes
        Dots are seeds, a line joins a seed's dots, the bar is the mean over seeds.

    Examples
    --------
    >>> gains(["last", "averaged"], {"R": {100: [0.7, 0.71]}, "K": {100: [0.7, 0.72]}}).get_ylabel()
    'validation accuracy (%)'
    """
    ax = ax or panels()[0]
    arms = len(values_by_arm_and_seed)
    step = 0.8 / max(1, arms)
    for index, (arm, by_seed) in enumerate(values_by_arm_and_seed.items()):
        x = np.arange(len(labels)) + (index - (arms - 1) / 2) * step
        table = 100 * np.array([np.asarray(values, dtype=float) for values in by_seed.values()])
        style = look(index)
        ax.plot(x, table.T, color=style.color, linewidth=0.5, alpha=0.5)
        ax.plot(x, table.T, style.marker, color=style.color, markersize=5, markerfacecolor="none")
        ax.hlines(table.mean(axis=0), x - 0.4 * step, x + 0.4 * step, color=style.color, linewidth=2.4)
        ax.plot([], [], style.marker, color=style.color, markersize=6, markerfacecolor="none", label=plain(arm))
    ax.set_xticks(np.arange(len(labels)), [wrapped(label, ax, 0.75 / len(labels)) for label in labels])
    ax.set_xlabel("which weights are read")
    ax.set_ylabel(wrapped(ylabel, ax, 0.65))
    ax.grid(visible=False, axis="x")
    legend_above(ax)
    return ax

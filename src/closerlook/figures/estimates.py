"""Numbers with their intervals, one row per quantity and one mark per group."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from closerlook.figures.style import label_x, legend_above, look, panels, plain


def estimates(
    names: Sequence[str], values_by_group: Mapping[str, ArrayLike], xlabel: str, ax: Axes | None = None
) -> Axes:
    """Plot value, low and high of several quantities, side by side for each group.

    Parameters
    ----------
    names
        Quantities, k of them, from top to bottom.
    values_by_group
        Per group value, low and high of each quantity [k, 3]; what is not finite leaves a gap.
    xlabel
        Quantity and unit.
    ax
        Where to draw; made if not given.

    Examples
    --------
    >>> estimates(["agreement"], {"all": [(0.9, 0.85, 0.94)]}, "share").get_xlabel()
    'share'
    """
    ax = ax or panels(height=0.9 + 0.5 * len(names))[0]
    step = 0.6 / max(1, len(values_by_group))
    for index, (group, values) in enumerate(values_by_group.items()):
        value, low, high = np.asarray(values, dtype=float).reshape(-1, 3).T
        y = np.arange(len(names)) + (index - (len(values_by_group) - 1) / 2) * step
        style = look(index)
        ax.hlines(y, low, high, color=style.color, linewidth=1.6)
        ax.plot(value, y, style.marker, color=style.color, markersize=5, label=plain(group))
    ax.set_yticks(np.arange(len(names)), [plain(name) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    label_x(ax, xlabel)
    legend_above(ax)
    return ax

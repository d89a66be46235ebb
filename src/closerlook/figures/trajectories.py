"""The way of a series of checkpoints on a plane of weight space."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from closerlook.figures.planes import follow, label_plane, legend_below, mark_point
from closerlook.figures.style import panels


def trajectory(
    coordinates: ArrayLike, off_plane: ArrayLike, names: Sequence[str], axes: tuple[str, str], ax: Axes | None = None
) -> Axes:
    """Draw a series of checkpoints on a plane, each larger the further it lies off it.

    Parameters
    ----------
    coordinates
        Of the checkpoints in their order, [m, 2], in weight distance (L2).
    off_plane
        Their distances off the plane, [m].
    names
        Of the checkpoints; the first and the last are written.
    axes
        What the coordinates are.
    ax
        Where to draw; made if not given.

    Examples
    --------
    >>> trajectory([[-2, 0], [-1, 1], [0, 0]], [0.5, 0.1, 0], ["0", "1", "2"], ("first", "second")).get_ylabel()
    'second'
    """
    xy, off = np.asarray(coordinates, dtype=float), np.asarray(off_plane, dtype=float)
    width = float(np.ptp(xy, axis=0).max()) or 1.0
    ax = ax or panels(height=4.2)[0]
    ax.margins(0.1)
    follow(ax, xy, off, width)
    for index in (0, -1):
        mark_point(ax, names[index], (*xy[index], 0.0), width)
    label_plane(ax, axes, "", "")
    legend_below(ax)
    return ax

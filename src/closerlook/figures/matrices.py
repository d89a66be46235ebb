"""Heat maps with their numbers: barriers between every two of a set of weights."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from closerlook.figures.style import FIELD, INK, WIDTH, font_size, panels, plain, width_of, wrapped


def matrix(
    values: ArrayLike,
    labels: Sequence[str],
    title: str = "",
    unit: str = "nats",
    ax: Axes | None = None,
    *,
    groups: Sequence[str] = (),
) -> Axes:
    """Draw a square matrix as a heat map with the number in each cell and a blank diagonal.

    Parameters
    ----------
    values
        [n, n]; entries that are not finite stay blank.
    labels
        Names of rows and columns, n of them.
    title
        What the numbers are; it stands above the map.
    unit
        Unit of the numbers; it stands beside the colour bar.
    ax
        Where to draw; made if not given, larger for more rows.
    groups
        The group of each row, such as its seed; lines separate the groups and their names stand above.

    Examples
    --------
    >>> matrix([[0, 1.2], [1.2, 0]], ["seed 100", "seed 101"], "barrier").get_title(loc="left")
    'barrier'
    """
    shown = np.array(values, dtype=float)
    np.fill_diagonal(shown, np.nan)
    count = len(labels)
    ax = ax or _room_for([str(label) for label in labels])
    # 256 small patches instead of an image: the drawing stays text, sharp at any size.
    mesh = ax.pcolormesh(np.ma.masked_invalid(shown), cmap=FIELD, edgecolors="white", linewidth=0.5)
    _write_numbers(ax, shown)
    _name_rows(ax, [plain(label) for label in labels])
    _separate(ax, groups, count)
    ax.set_title(wrapped(title, ax, 0.6), loc="left", pad=18 if groups else 6)
    bar = ax.figure.colorbar(mesh, ax=ax, shrink=0.8)
    bar.set_label(plain(unit))
    return ax


def _room_for(labels: Sequence[str]) -> Axes:
    """Make axes that leave a number in each cell readable, however many rows there are and however they are named."""
    cells = max(2.6, 0.36 * len(labels))
    names = 0.08 * max(map(len, labels), default=0)
    return panels(height=cells + names + 0.9, width=max(WIDTH, cells + names + 1.5))[0]


def _write_numbers(ax: Axes, shown: NDArray[np.float64]) -> None:
    known = shown[np.isfinite(shown)]
    middle = (known.min() + known.max()) / 2 if known.size else 0.0
    texts = {place: _short(value) for place, value in np.ndenumerate(shown) if np.isfinite(value)}
    letters = max(map(len, texts.values()), default=1)
    cell = 0.65 * width_of(ax) / len(shown)  # the map takes about 65 % of the width
    for (row, column), text in texts.items():
        color = "white" if shown[row, column] < middle else INK  # the field runs from dark to light
        size = min(font_size(ax), cell / (0.6 * letters + 0.4))
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=color, fontsize=size)


def _short(value: float) -> str:
    return (f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}").replace("-", "\N{MINUS SIGN}")


def _name_rows(ax: Axes, labels: Sequence[str]) -> None:
    places = np.arange(len(labels)) + 0.5
    long = max(map(len, labels), default=0) > 4
    ax.set_xticks(places, labels, rotation=90 if long else 0)
    ax.set_yticks(places, labels)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.invert_yaxis()
    ax.set_aspect("equal")
    ax.spines[:].set_visible(False)
    ax.set_xlabel("end of the segment")
    ax.set_ylabel("start of the segment")


def _separate(ax: Axes, groups: Sequence[str], count: int) -> None:
    if not groups:
        return
    starts = [0, *(row for row in range(1, count) if groups[row] != groups[row - 1]), count]
    for start, end in pairwise(starts):
        ax.text((start + end) / 2, -0.12, plain(groups[start]), ha="center", va="bottom", fontsize=font_size(ax))
        if end < count:
            ax.axhline(end, color=INK, linewidth=1.6)
            ax.axvline(end, color=INK, linewidth=1.6)

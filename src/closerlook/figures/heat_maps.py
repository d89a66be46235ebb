"""Heat maps of layers against layers: similarities from 0 to 1, and differences around 0."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from closerlook.figures.style import FIELD, INK, WIDTH, font_size, label_x, panels, plain, width_of, wrapped

_DIVERGING = "PuOr"  # orange and purple stay apart for colour-blind readers; white is no difference
_SMALLEST = 4.0  # points: smaller numbers are left out, the colours stay


def heat_map(
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    unit: str = "similarity",
    ax: Axes | None = None,
    *,
    row_label: str = "layer of A",
    column_label: str = "layer of B",
    difference: bool = False,
    bar: bool = True,
) -> Axes:
    """Draw similarities of layers against layers, with the number in each cell that has room for it.

    Parameters
    ----------
    values
        [len(rows), len(columns)]; entries that are not finite stay blank.
    rows, columns
        Names of the layers.
    title
        What the numbers are; it stands above the map.
    unit
        Unit of the numbers; it stands beside the colour bar.
    ax
        Where to draw; made if not given, larger for more layers.
    row_label, column_label
        Whose layers these are.
    difference
        Whether 0 is the middle of the colours; otherwise they run from 0 to 1, the same in every figure.
    bar
        Whether a colour bar stands beside the map; a neighbour's serves both.

    Examples
    --------
    >>> heat_map([[1.0, 0.3], [0.2, 0.9]], ["conv1", "fc"], ["conv1", "fc"], "CKA").get_title(loc="left")
    'CKA'
    """
    shown = np.asarray(values, dtype=float)
    ax = ax or _room_for(rows, columns)
    mesh = ax.pcolormesh(np.ma.masked_invalid(shown), edgecolors="white", linewidth=0.5, **_scale(shown, difference))
    _write(ax, shown, np.asarray(mesh.norm(shown), dtype=float), difference)
    _name(ax, rows, columns)
    label_x(ax, column_label)
    ax.set_ylabel(plain(row_label))
    ax.set_title(wrapped(title, ax, 0.7), loc="left")
    if bar:
        ax.figure.colorbar(mesh, ax=ax, shrink=0.8).set_label(plain(unit))
    return ax


def _scale(shown: NDArray[np.float64], difference: bool) -> dict[str, Any]:
    known = shown[np.isfinite(shown)]
    if not difference:
        # Corrected values can be below 0: the field ends there and the numbers say the rest.
        return {"cmap": FIELD, "vmin": 0.0, "vmax": 1.0}
    largest = float(np.abs(known).max()) if known.size and known.any() else 1.0
    return {"cmap": _DIVERGING, "vmin": -largest, "vmax": largest}


def _room_for(rows: Sequence[str], columns: Sequence[str]) -> Axes:
    wide, high = max(2.6, 0.42 * len(columns)), max(2.0, 0.34 * len(rows))
    left, below = (0.08 * max(map(len, names), default=0) for names in (rows, columns))
    return panels(height=high + below + 0.9, width=max(WIDTH, wide + left + 1.6))[0]


def _write(ax: Axes, shown: NDArray[np.float64], shade: NDArray[np.float64], difference: bool) -> None:
    cell = 0.62 * width_of(ax) / max(1, shown.shape[1])  # the map takes about 62 % of the width
    size = min(font_size(ax), cell / 2.9)  # four signs and a gap
    if size < _SMALLEST:
        return
    for (row, column), value in np.ndenumerate(shown):
        if np.isfinite(value):
            strength = shade[row, column]
            dark = abs(strength - 0.5) > 0.35 if difference else strength < 0.5
            ax.text(
                column + 0.5, row + 0.5, _short(value), ha="center", va="center", fontsize=size,
                color="white" if dark else INK,
            )  # fmt: skip


def _short(value: float) -> str:
    """Two digits without the leading zero: .53, -.02, 1."""
    text = f"{value:.2f}"
    text = {"1.00": "1", "0.00": "0", "-0.00": "0", "-1.00": "-1"}.get(text, text.replace("0.", ".", 1))
    return text.replace("-", "\N{MINUS SIGN}")


def _name(ax: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    ax.set_xticks(np.arange(len(columns)) + 0.5, [plain(name) for name in columns], rotation=90)
    ax.set_yticks(np.arange(len(rows)) + 0.5, [plain(name) for name in rows])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)

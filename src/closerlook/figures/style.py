"""How every figure looks: axes without global state; colours, dashes, markers that survive colour blindness."""

from string import ascii_uppercase
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

INK = "#000000"
MUTED = "#6b6b6b"
HALO = [withStroke(linewidth=2.6, foreground="white")]  # keeps a text or a mark readable on lines and fields
WIDTH = 5.0  # inches: a phone shows 360 pt at almost its natural size, so 10 pt stay readable there
FIELD = "cividis"  # perceptually uniform, and the same map for colour-blind readers
_ORDERED = "viridis"  # as even as the field, with more hues: neighbouring parts stay apart

_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9.5,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}


class Look(NamedTuple):
    """What tells one category from another: colour, dash pattern and marker, all three different."""

    color: str
    dash: Any
    marker: str


def look(index: int) -> Look:
    """Give the look of category number `index`; the first 28 differ in colour or dash pattern.

    Examples
    --------
    >>> look(0).color, look(1).marker
    ('#0072B2', 's')
    """
    turn = index // len(_OKABE_ITO)
    dash = _DASHES[(index + 2 * turn) % len(_DASHES)]  # 7 + 2 is 1 modulo 4: one colour meets every pattern
    return Look(_OKABE_ITO[index % len(_OKABE_ITO)], dash, _MARKERS[(index + turn) % len(_MARKERS)])


def by_depth(index: int, count: int) -> Look:
    """Give the look of part `index` of `count` ordered ones: dark is shallow, light is deep.

    Examples
    --------
    >>> by_depth(0, 3).color, by_depth(1, 3).marker
    ('#440154', 's')
    """
    share = 0.88 * index / max(1, count - 1)  # the last tenth of the map is too light on white
    return Look(to_hex(matplotlib.colormaps[_ORDERED](share)), *look(index)[1:])


def panels(
    rows: int = 1,
    height: float = 3.3,
    width: float = WIDTH,
    share_x: bool = True,
    columns: int = 1,
    share_y: bool = False,
) -> list[Axes]:
    """Make the axes of one figure, one above the other, without touching pyplot's state.

    Parameters
    ----------
    rows
        Number of axes.
    height, width
        Size of one axes and of the figure, in inches.
    share_x
        Whether all axes show the same range of x.
    columns
        Number of axes side by side.
    share_y
        Whether all axes show the same range of y.

    Returns
    -------
    list of Axes
        From top to bottom, each row from left to right; ``axes[0].figure`` is the figure.

    Examples
    --------
    >>> top, bottom = panels(2)
    >>> top.figure is bottom.figure
    True
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height * rows), layout="constrained")
        return list(figure.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False).flat)


def plain(text: object) -> str:
    """Return `text` as matplotlib is to show it: dollar signs are no formula."""
    return printable(text).replace("$", r"\$")


def printable(text: object) -> str:
    """Return `text` without the control characters that no SVG may hold."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in str(text))


def letter(place: int) -> str:
    """Return A, B, C, ... for what has too long a name, and numbers after Z.

    Examples
    --------
    >>> letter(0), letter(25), letter(26)
    ('A', 'Z', '27')
    """
    return ascii_uppercase[place] if place < len(ascii_uppercase) else str(place + 1)


def font_size(ax: Axes) -> float:
    """Size of small text in points, following the style that the axes were made with."""
    return 0.95 * float(ax.xaxis.label.get_fontsize())


def wrapped(text: object, ax: Axes, share: float = 1.0) -> str:
    """Return `text` broken into lines that take at most this share of the figure's width."""
    letters = int(share * width_of(ax) / (0.6 * font_size(ax)))  # of a wide sans serif font
    return plain(fill(str(text), max(6, letters)))


def width_of(ax: Axes) -> float:
    """Width in points of the figure that holds these axes, or of their share where axes stand side by side."""
    place = ax.get_subplotspec()
    columns = 1 if place is None else place.get_gridspec().ncols
    return 72 * float(ax.figure.bbox.width) / float(ax.figure.dpi) / columns


def label_x(ax: Axes, text: str) -> None:
    """Name the x axis; of stacked axes that share it only the lowest keeps its name."""
    ax.set_xlabel(plain(text))
    place = ax.get_subplotspec()
    if place is not None and len(ax.get_shared_x_axes().get_siblings(ax)) > 1:
        ax.xaxis.label.set_visible(place.is_last_row())


def label_y(ax: Axes, text: str) -> None:
    """Name the y axis; of axes side by side that share it only the first keeps its name."""
    ax.set_ylabel(wrapped(text, ax, 0.65))
    place = ax.get_subplotspec()
    if place is not None and len(ax.get_shared_y_axes().get_siblings(ax)) > 1:
        ax.yaxis.label.set_visible(place.is_first_col())


def label_steps(ax: Axes, ylabel: str) -> None:
    """Name both axes of a figure over steps."""
    label_x(ax, "step")
    label_y(ax, ylabel)
    ax.locator_params(axis="x", integer=True)


def legend_above(ax: Axes) -> None:
    """Put the legend above the axes, where it hides no data, in as many columns as fit the width."""
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    letters = width_of(ax) / (0.6 * font_size(ax))
    columns = max(1, min(len(labels), int(letters // (max(map(len, labels)) + 10))))
    labels = [fill(label, int(0.75 * letters)) for label in labels]
    ax.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, frameon=False, handlelength=3.2,
        columnspacing=1.2, borderaxespad=0.2, fontsize=font_size(ax),
    )  # fmt: skip


def legend_of_figure(ax: Axes) -> None:
    """Put the legend of these axes above the whole figure, for axes side by side that show the same categories."""
    handles, labels = ax.get_legend_handles_labels()
    width = 72 * float(ax.figure.bbox.width) / float(ax.figure.dpi)
    columns = max(1, int(width / (0.6 * font_size(ax)) // (max(map(len, labels), default=0) + 10)))
    ax.figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, frameon=False, handlelength=3.2,
        fontsize=font_size(ax),
    )  # fmt: skip

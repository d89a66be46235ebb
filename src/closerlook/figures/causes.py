"""Which part of a network brings a heuristic's benefit: one row per part, every way of treating it beside the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from closerlook.errors import UsageError
from closerlook.figures.style import HALO, INK, MUTED, Look, font_size, legend_of_figure, look, panels, plain, wrapped

EDGES = (-0.5, 1.5)  # the same in every figure; what lies beyond is drawn in the margin as a triangle that points on
MARGIN = 0.08


def causal_map(
    rows: Sequence[str],
    shares_by_way: Mapping[str, ArrayLike],
    means_by_way: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    controls: int = 0,
    xlabel: str = "share of warmup's benefit, (X \N{MINUS SIGN} N) / (W \N{MINUS SIGN} N)",
) -> Axes:
    """Plot the share of a benefit that each part of the network brings when it alone is treated.

    Parameters
    ----------
    rows
        The parts, shallow to deep, then the controls; r of them.
    shares_by_way
        Per way of treating a part (such as warmed up alone, frozen alone) the share of each seed, [r, seeds]: 0 is
        no benefit, 1 all of it. Entries that are not known are NaN and stay blank; values beyond -0.5 and 1.5 are
        triangles at the edge.
    means_by_way
        Per way the mean and the lower and upper end of its interval, [r, 3].
    ax
        Where to draw; made if not given, higher for more rows.
    controls
        How many of the last rows are no part of the depth, such as a random set; a line sets them apart.
    xlabel
        What the shares are.

    Returns
    -------
    Axes
        Hollow marks are seeds, the filled mark is the mean and the bar its interval; lines stand at 0, 0.5 and 1.
        Beside a mean beyond the edge stands its number.

    Raises
    ------
    UsageError
        No rows or ways, or tables of another shape.

    Examples
    --------
    >>> shares, means = [[0.1, 0.0], [0.9, 1.0]], [[0.05, -0.1, 0.2], [0.95, 0.8, 1.1]]
    >>> ax = causal_map(["block 1", "head"], {"warmed up alone": shares}, {"warmed up alone": means})
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['block 1', 'head']
    """
    _check(rows, shares_by_way, means_by_way)
    ax = ax or panels(height=1.3 + 0.5 * len(rows))[0]
    for line, dash in ((0.0, "-"), (0.5, (0, (4, 2))), (1.0, "-")):
        ax.axvline(line, color=INK if line == 0.5 else MUTED, linewidth=1.2, linestyle=dash, zorder=1)
    strip = 0.8 / len(shares_by_way)
    for index, (way, shares) in enumerate(shares_by_way.items()):
        middle = (index - (len(shares_by_way) - 1) / 2) * strip
        y = np.array([row + middle for row in range(len(rows))])
        _draw(ax, y, np.asarray(shares, dtype=float), np.asarray(means_by_way[way], dtype=float), look(index), strip)
        ax.plot([], [], look(index).marker, color=look(index).color, markersize=8, label=plain(way))
    if any((np.abs(np.asarray(shares) - 0.5) > 1).any() for shares in shares_by_way.values()):
        ax.plot([], [], ">", color=INK, markerfacecolor="none", label="beyond the edge")
    _name(ax, rows, controls)
    ax.set_xlabel(wrapped(xlabel, ax, 0.7))
    legend_of_figure(ax)
    return ax


def _check(rows: Sequence[str], shares_by_way: Mapping[str, ArrayLike], means_by_way: Mapping[str, ArrayLike]) -> None:
    if not rows or not shares_by_way:
        raise UsageError("a causal map needs at least one row and one way of treating it")
    for way, shares in shares_by_way.items():
        if way not in means_by_way:
            raise UsageError(f"means_by_way has no {way!r}; give the mean and interval of every way")
        found = np.shape(shares), np.shape(means_by_way[way])
        if len(found[0]) != 2 or found[0][0] != len(rows) or found[1] != (len(rows), 3):
            raise UsageError(
                f"{way}: {len(rows)} rows need shares [{len(rows)}, seeds] and means [{len(rows)}, 3]; "
                f"these have the shapes {found[0]} and {found[1]}"
            )


def _draw(
    ax: Axes, y: NDArray[np.float64], shares: NDArray[np.float64], means: NDArray[np.float64], style: Look, strip: float
) -> None:
    """Draw one way: seeds in the upper half of their strip, each at a height of its own, the mean in the lower."""
    heights = y[:, None] - strip * np.linspace(0.02, 0.3, shares.shape[1])
    _marks(ax, shares.ravel(), heights.ravel(), style, markersize=5, markerfacecolor="none")
    center, (low, high) = y + 0.2 * strip, np.clip(means[:, 1:], *EDGES).T
    ax.hlines(center, low, high, color=style.color, linewidth=2.4)
    beyond = np.where((means[:, 1:] < EDGES[0]) | (means[:, 1:] > EDGES[1]), means[:, 1:], np.nan)
    _marks(ax, beyond.ravel(), np.repeat(center, 2), style, markersize=5)
    _marks(ax, means[:, 0], center, style, markersize=8, markeredgecolor="white")
    _say(ax, means[:, 0], center, style)


def _marks(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], style: Look, **looks: Any) -> None:
    """Draw marks where they are, and triangles at the edge for those beyond it."""
    inside = (x >= EDGES[0]) & (x <= EDGES[1])
    ax.plot(x[inside], y[inside], style.marker, color=style.color, zorder=3, **looks)
    for beyond, sign, edge in ((x < EDGES[0], "<", EDGES[0] - MARGIN / 2), (x > EDGES[1], ">", EDGES[1] + MARGIN / 2)):
        ax.plot(np.full(beyond.sum(), edge), y[beyond], sign, color=style.color, zorder=3, **looks)


def _say(ax: Axes, means: NDArray[np.float64], y: NDArray[np.float64], style: Look) -> None:
    """Write the means that lie beyond an edge beside their triangles."""
    for mean, height in zip(means, y, strict=True):
        side = int(mean > EDGES[1])
        if np.isfinite(mean) and (side or mean < EDGES[0]):
            ax.annotate(
                f"{mean:.2g}".replace("-", "\N{MINUS SIGN}"), (EDGES[side], height), ha=("left", "right")[side],
                va="center", fontsize=font_size(ax), color=style.color, path_effects=HALO,
            )  # fmt: skip


def _name(ax: Axes, rows: Sequence[str], controls: int) -> None:
    ax.set_xlim(EDGES[0] - MARGIN, EDGES[1] + MARGIN)
    ax.set_xticks([-0.5, 0, 0.5, 1, 1.5])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(np.arange(len(rows)), [wrapped(row, ax, 0.35) for row in rows])
    ax.set_ylabel("part, shallow to deep")
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    for border in np.arange(len(rows) - 1) + 0.5:
        last = border == len(rows) - controls - 0.5
        ax.axhline(border, color=INK if last else "#dddddd", linewidth=1.2 if last else 0.6, zorder=0)

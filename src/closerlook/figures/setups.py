"""The parts of one rule in several set-ups: one scale per part, a row for each set-up."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from closerlook.figures.parts import COLORS, SIGNS, clipped, intervals, numbers, ranges
from closerlook.figures.style import INK, MUTED, font_size, panels, plain

_ROW, _HEAD = 0.27, 0.75  # inches of a set-up, and of a part's name and axis


def setups(parts: Mapping[str, Mapping[str, Mapping[str, Any]]], ax: Axes | None = None) -> Axes:
    """Draw every part with its set-ups below one another: interval, mean, seeds and answer, and the margin for all.

    Parameters
    ----------
    parts
        For each part, by name, what :func:`closerlook.figures.forest` draws in each set-up, by the set-up's name. Parts
        of one unit share their range.
    ax
        Area that the parts are drawn into; made if not given, higher for more rows.

    Returns
    -------
    Axes
        The area; its parts are ``ax.child_axes``.

    Examples
    --------
    >>> part = {"effect": 0.4, "low": 0.2, "high": 0.6, "margin": 0.1, "answer": "yes", "values": [0.3, 0.5]}
    >>> len(setups({"E1": {"A": part, "B": part}}).child_axes)
    1
    """
    heights = [_HEAD + _ROW * len(found) for found in parts.values()]
    whole = sum(heights) or _HEAD
    ax = ax or panels(height=whole)[0]
    ax.set_axis_off()
    shared = ranges([part for found in parts.values() for part in found.values()])
    letters = max((len(clipped(name, 16)) for found in parts.values() for name in found), default=0)
    left, top = 0.03 + 0.019 * letters, 1.0
    for (name, found), height in zip(parts.items(), heights, strict=True):
        head, rows = 0.28 / whole, (height - _HEAD) / whole
        row = ax.inset_axes((left, top - head - rows, 0.97 - left, rows))
        row.set_xlim(*shared[str(next(iter(found.values()), {}).get("unit", ""))])
        _draw(row, name, found)
        top -= height / whole
    return ax


def _draw(row: Axes, name: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    size = font_size(row)
    row.axvline(0, color=MUTED, linewidth=0.8)
    for margin in {margin for part in found.values() for margin in numbers(part, "margin")}:
        row.axvline(margin, color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    for place, part in enumerate(found.values()):
        _line(row, place, part)
    signs = [SIGNS.get(str(part.get("answer", "open")), "") for part in found.values()]
    labels = [f"{clipped(setup, 16)} {sign}" for setup, sign in zip(found, signs, strict=True)]
    row.set_yticks(range(len(found)), [plain(label) for label in labels])
    row.set_ylim(len(found) - 0.4, -0.6)
    row.grid(visible=False)
    row.spines[["left", "right", "top"]].set_visible(False)
    row.tick_params(labelsize=size)
    row.tick_params(axis="y", length=0)
    row.locator_params(axis="x", nbins=6)
    first = next(iter(found.values()), {})
    title = clipped(f"{name} {first.get('contrast', '')}".strip(), 52).replace(" - ", " \N{MINUS SIGN} ")
    row.set_title(plain(title), loc="left", fontsize=size, weight="bold")
    row.set_xlabel(plain(clipped(first.get("unit", ""), 48)), fontsize=size, labelpad=1, loc="left")


def _line(row: Axes, place: int, part: Mapping[str, Any]) -> None:
    color = COLORS.get(str(part.get("answer", "open")), INK)
    for bounds, width in zip(intervals(part), (5, 1.5, 1.5), strict=False):  # the first one decides the answer shown
        row.plot(bounds, [place, place], color=color, linewidth=width, solid_capstyle="butt")
    values = numbers(part, "values")
    row.plot(values, [place + 0.28] * len(values), "o", markersize=3.5, color="none", markeredgecolor=INK)
    for effect in numbers(part, "effect"):
        row.plot([effect], [place], marker="D", markersize=6, color=color, markeredgecolor="white")

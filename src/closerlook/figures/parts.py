"""The parts of a verdict: per-seed values, mean, interval, margin and answer, one row each."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from closerlook.figures.style import INK, MUTED, font_size, panels, plain

SIGNS = {"yes": "▲", "no": "▼", "open": "◇"}
COLORS = {"yes": "#0072B2", "no": "#D55E00"}


def forest(parts: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw one row per part, each on its own scale with its own unit; rows of one unit share their range.

    Parameters
    ----------
    parts
        For each part its `name`, `values` (list, or mapping from seed to value), `effect`, `low`, `high` (interval),
        `margin`, `answer` ("yes", "no", "open") and `unit`; several `intervals` (mappings with `low` and `high`) are
        drawn over one another. A number may be missing or None.
    ax
        Area that the rows are drawn into; made if not given, higher for more parts.

    Returns
    -------
    Axes
        The area; its rows are ``ax.child_axes``.

    Examples
    --------
    >>> part = {"name": "E1", "values": [0.3, 0.5], "effect": 0.4, "low": 0.2, "high": 0.6, "margin": 0.1, "unit": "1"}
    >>> len(forest([{**part, "answer": "yes"}]).child_axes)
    1
    """
    ax = ax or panels(height=0.2 + 1.05 * max(1, len(parts)))[0]
    ax.set_axis_off()
    limits = ranges(parts)
    height = 1 / max(1, len(parts))
    for index, part in enumerate(parts):
        row = ax.inset_axes((0.02, 1 - (index + 0.62) * height, 0.96, 0.36 * height))
        row.set_xlim(*limits[str(part.get("unit", ""))])
        _draw(row, part)
    return ax


def numbers(part: Mapping[str, Any], *names: str) -> list[float]:
    """Return the finite numbers that stand under these names; lists and mappings count with all their entries."""
    found: list[Any] = []
    for name in names:
        value = part.get(name)
        value = list(value.values()) if isinstance(value, Mapping) else value
        found += value if isinstance(value, list | tuple) else [value]
    return [float(value) for value in found if value is not None and np.isfinite(value)]


def intervals(part: Mapping[str, Any]) -> list[list[float]]:
    """Low and high of every interval of a part that has both, the one that gives the answer first."""
    bounds = [numbers(each, "low", "high") for each in part.get("intervals") or [part]]
    return [both for both in bounds if len(both) == 2]


def ranges(parts: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return the range of x that parts of each unit share."""
    by_unit: dict[str, list[float]] = {}
    for part in parts:
        by_unit.setdefault(str(part.get("unit", "")), [0.0]).extend(
            [*numbers(part, "values", "effect", "margin"), *chain.from_iterable(intervals(part))]
        )
    pad = {unit: 0.06 * (max(seen) - min(seen)) or 1.0 for unit, seen in by_unit.items()}
    return {unit: (min(seen) - pad[unit], max(seen) + pad[unit]) for unit, seen in by_unit.items()}


def _draw(row: Axes, part: Mapping[str, Any]) -> None:
    answer = str(part.get("answer", "open"))
    color = COLORS.get(answer, INK)
    row.axvline(0, color=MUTED, linewidth=0.8)
    for margin in numbers(part, "margin"):
        row.axvline(margin, color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    for bounds, width in zip(intervals(part), (5, 1.5, 1.5), strict=False):  # the first one decides the answer shown
        row.plot(bounds, [0.3, 0.3], color=color, linewidth=width, solid_capstyle="butt")
    for effect in numbers(part, "effect"):
        row.plot([effect], [0.3], marker="D", markersize=7, color=color, markeredgecolor="white")
    values = np.array(numbers(part, "values"))
    row.plot(values, _spread_out(values, row.get_xlim()), "o", markersize=5, color="none", markeredgecolor=INK)
    _caption(row, part, answer)


def _spread_out(values: NDArray[np.float64], limits: tuple[float, float]) -> NDArray[np.float64]:
    """Heights of the dots: those that would hide one another alternate around the middle of their strip."""
    heights = np.full(len(values), 0.75)
    order = np.argsort(values)
    close = np.diff(values[order]) < 0.02 * (limits[1] - limits[0])
    for place, is_close in enumerate(close, start=1):
        if is_close:
            heights[order[place]] = 0.9 if heights[order[place - 1]] < 0.8 else 0.62
    return heights


def _caption(row: Axes, part: Mapping[str, Any], answer: str) -> None:
    size = font_size(row)
    row.set_ylim(0, 1)
    row.set_yticks([])
    row.grid(visible=False)
    row.spines[["left", "right", "top"]].set_visible(False)
    row.tick_params(labelsize=size)
    row.locator_params(axis="x", nbins=6)
    name = clipped(f"{part['name']} {part.get('contrast', '')}".strip(), 46)
    title = f"{SIGNS.get(answer, '')} {name}: {clipped(answer, 12)}".replace(" - ", " \N{MINUS SIGN} ")
    row.set_title(plain(title), loc="left", fontsize=size, weight="bold")
    effect = "".join(_short(value) for value in numbers(part, "effect")) or "effect not known, unit:"
    interval = "".join(f" [{_short(low)}, {_short(high)}]" for low, high in intervals(part)[:1])
    label = f"{effect}{interval} {clipped(part.get('unit', ''), 36)}"
    row.set_xlabel(plain(label), fontsize=size, labelpad=1, loc="left")


def clipped(text: object, letters: int) -> str:
    """Return a text cut to so many letters."""
    whole = str(text)
    return whole if len(whole) <= letters else whole[: letters - 1] + "…"


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")

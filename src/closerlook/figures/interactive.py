"""A metric on a plane as a surface in space, to turn and zoom: one HTML page that needs no network."""

from collections.abc import Mapping
from html import escape
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from closerlook.errors import UsageError
from closerlook.figures.planes import Mark
from closerlook.figures.style import FIELD, INK, printable

Array = NDArray[np.float64]
_ORANGE = "#D55E00"


def interactive(
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike,
    marks: Mapping[str, Mark] | None = None,
    *,
    trajectory: tuple[ArrayLike, ArrayLike] | None = None,
    metric: str = "loss (nats)",
    split: str = "",
    batch_stats: str = "",
    axes: tuple[str, str] = ("distance along u (L2 of weights)", "distance along v (L2 of weights)"),
) -> str:
    """Return an HTML page with a positive metric on a plane as a surface, on logarithmic height and colour.

    The page holds all that it needs, plotly.js too (5 MB). Equal arguments give equal text.

    Parameters
    ----------
    x, y, z, marks, metric, split, batch_stats, axes
        As in `closerlook.figures.surface`. A mark stands on the surface over its projection, not at its own metric.
    trajectory
        Coordinates [m, 2] and distances off the plane [m] of a run; a distance is told where the pointer is.

    Raises
    ------
    UsageError
        plotly is not installed.

    Examples
    --------
    >>> interactive([0, 1], [0, 1], [[1, 2], [3, 4]])[:15].lower()
    '<!doctype html>'
    """
    graphs = plotly_graphs()
    x, y, z = (np.asarray(values, dtype=float) for values in (x, y, z))
    height = np.log10(np.where(np.isfinite(z) & (z > 0), z, np.nan))
    parts = [_surface(graphs, x, y, height, metric)]
    if trajectory is not None:
        xy, off = (np.asarray(values, dtype=float) for values in trajectory)
        parts.append(_way(graphs, xy, off, _on(x, y, height, xy)))
    if marks:
        parts.append(_marks(graphs, marks, _on(x, y, height, np.array([mark[:2] for mark in marks.values()]))))
    figure = graphs.Figure(parts, _layout(height, metric, split, batch_stats, axes))
    page: str = figure.to_html(include_plotlyjs=True, div_id="surface", config={"displaylogo": False})
    return page


def plotly_graphs() -> ModuleType:
    """The graph objects of plotly, or the error that says how to get them."""
    try:
        import plotly.graph_objects as graphs  # takes a second, and most never need it
    except ImportError as error:
        raise UsageError("an interactive figure needs plotly: pip install 'closerlook[plotly]'") from error
    module: ModuleType = graphs
    return module


def _surface(graphs: Any, x: Array, y: Array, height: Array, metric: str) -> Any:
    ticks = _ticks(height)
    told = "x %{x:.4g}<br>y %{y:.4g}<br>" + _safe(metric) + " %{customdata:.4g}<extra></extra>"
    lines = {"z": {"show": True, "color": "white", "width": 1, "size": (ticks[-1] - ticks[0]) / 14,
                   "start": ticks[0], "end": ticks[-1]}}  # fmt: skip
    bar = {"title": {"text": _safe(metric), "side": "right"}, "tickvals": ticks, "ticktext": _powers(ticks)}
    return graphs.Surface(
        x=x, y=y, z=height, customdata=10**height, colorscale=FIELD, colorbar=bar, contours=lines, hovertemplate=told,
    )  # fmt: skip


def _way(graphs: Any, xy: Array, off: Array, height: Array) -> Any:
    told = "checkpoint %{pointNumber}: %{customdata:.3g} off the plane<extra></extra>"
    return graphs.Scatter3d(
        x=xy[:, 0], y=xy[:, 1], z=height, customdata=off, mode="lines+markers", name="run", showlegend=False,
        line={"color": INK, "width": 5}, marker={"color": "white", "size": 4, "line": {"color": INK, "width": 1}},
        hovertemplate=told,
    )  # fmt: skip


def _marks(graphs: Any, marks: Mapping[str, Mark], height: Array) -> Any:
    places = np.array(list(marks.values()), dtype=float)
    return graphs.Scatter3d(
        x=places[:, 0], y=places[:, 1], z=height, customdata=places[:, 2], text=[_safe(name) for name in marks],
        mode="markers+text", textposition="top center", showlegend=False, marker={"color": _ORANGE, "size": 5},
        hovertemplate="%{text}: %{customdata:.3g} off the plane<extra></extra>",
    )  # fmt: skip


def _layout(height: Array, metric: str, split: str, batch_stats: str, axes: tuple[str, str]) -> dict[str, Any]:
    above = [f"{split} images" if split else "", f"batch statistics: {batch_stats}" if batch_stats else ""]
    ticks = _ticks(height)
    scene = {
        "xaxis": {"title": {"text": _safe(axes[0])}}, "yaxis": {"title": {"text": _safe(axes[1])}},
        "zaxis": {"title": {"text": f"{_safe(metric)}, log scale"}, "tickvals": ticks, "ticktext": _powers(ticks)},
        "aspectmode": "manual", "aspectratio": {"x": 1.1, "y": 1.1, "z": 0.6},
        "camera": {"eye": {"x": 0.9, "y": -1.3, "z": 1.2}, "center": {"x": 0, "y": 0, "z": -0.15}},
    }  # fmt: skip
    title = {"text": _safe(", ".join(part for part in above if part)), "font": {"size": 14}}
    return {"scene": scene, "title": title, "margin": {"l": 0, "r": 0, "b": 0, "t": 40}, "font": {"color": INK}}


def _on(x: Array, y: Array, height: Array, xy: Array) -> Array:
    """Heights of the surface at points [m, 2], bilinear between its nodes; a little above, so that lines are seen."""
    places = []
    for axis, values in ((x, xy[:, 0]), (y, xy[:, 1])):
        at = np.clip(np.interp(values, axis, np.arange(len(axis))), 0, len(axis) - 1)
        low = np.minimum(at.astype(int), len(axis) - 2)
        places.append((low, at - low))
    (j, a), (i, b) = places
    lower = (1 - a) * height[i, j] + a * height[i, j + 1]
    upper = (1 - a) * height[i + 1, j] + a * height[i + 1, j + 1]
    ticks = _ticks(height)
    lifted: Array = (1 - b) * lower + b * upper + 0.01 * (ticks[-1] - ticks[0])
    return lifted


def _ticks(height: Array) -> list[float]:
    """Logarithms at which a value is written, from the lowest to the highest."""
    known = height[np.isfinite(height)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1e-3, 6).tolist()


def _powers(logarithms: list[float]) -> list[str]:
    return [f"{10**each:.3g}" for each in logarithms]


def _safe(text: object) -> str:
    """Text as plotly is to show it: it reads tags."""
    return escape(printable(text), quote=False)

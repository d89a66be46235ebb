"""The loss on a plane in weight space, with what lies on the plane told from what lies far off it."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

from closerlook.figures.style import FIELD, HALO, INK, font_size, panels, plain, wrapped

Mark = tuple[float, float, float]  # x, y and distance off the plane, all in weight distance
_LONG = 3  # sides of a plane whose ratio is larger have scales of their own


def surface(
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike,
    marks: Mapping[str, Mark] | None = None,
    path_xy: ArrayLike | None = None,
    trajectory: tuple[ArrayLike, ArrayLike] | None = None,
    ax: Axes | None = None,
    *,
    metric: str = "loss (nats)",
    split: str = "",
    batch_stats: str = "",
    axes: tuple[str, str] = ("distance along u (L2 of weights)", "distance along v (L2 of weights)"),
    unit: float = 1.0,
) -> Axes:
    """Draw filled contours of a positive metric on a plane, on a logarithmic colour scale.

    Parameters
    ----------
    x, y
        Coordinates on the plane in weight distance (L2), [nx] and [ny].
    z
        The metric, [ny, nx]; what is not finite and positive stays blank.
    marks
        Named points (x, y, distance off the plane). A distance that matters stands beside the name.
    path_xy
        Coordinates of a curve, [k, 2].
    trajectory
        Coordinates [m, 2] and distances off the plane [m] of a run. The larger the circle, the further off the
        plane: a circle that fills the legend's largest size is as far away as the plane is wide.
    ax
        Where to draw; made if not given.
    metric
        Quantity and unit, beside the colour bar.
    split, batch_stats
        The images that the metric was read on and the policy for batch-norm statistics; both stand above.
    axes
        What `x` and `y` count.
    unit
        Weight distance of one of what they count: distances off the plane are weight distances.

    Examples
    --------
    >>> surface([0, 1, 2], [0, 1], [[1.0, 2, 3], [0.1, 1, 2]], {"w30": (0, 0, 0)}).get_xlabel()
    'distance along u (L2 of weights)'
    """
    x, y, z = (np.asarray(values, dtype=float) for values in (x, y, z))
    width = unit * max(np.ptp(x), np.ptp(y))
    below = 0.65 if trajectory is not None or path_xy is not None else 0.0  # inches of legend
    ax = ax or panels(height=min(6.5, 0.85 + below + 3.2 * _shape(np.ptp(x), np.ptp(y))))[0]
    _fill(ax, x, y, z, metric)
    if path_xy is not None:
        edge = [withStroke(linewidth=4.2, foreground=INK)]
        ax.plot(*np.asarray(path_xy, dtype=float).T, color="white", linewidth=2.2, path_effects=edge, label="curve")
    if trajectory is not None:
        xy, distance = (np.asarray(values, dtype=float) for values in trajectory)
        follow(ax, xy, distance, width)
    for name, mark in (marks or {}).items():
        mark_point(ax, name, mark, width)
    label_plane(ax, axes, split, batch_stats)
    legend_below(ax)
    return ax


def _shape(across: float, up: float) -> float:
    """Height over width: equal scales keep angles, but would squeeze a long plane into a strip."""
    return float(up / across) if max(across, up) <= _LONG * min(across, up) else 0.75


def _fill(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64], metric: str) -> None:
    known = np.ma.masked_invalid(np.where(z > 0, z, np.nan))
    # A flat field still needs two different levels.
    low, high = (float(known.min()), float(known.max())) if known.count() else (1.0, 1.0)
    levels = np.geomspace(low, max(high, 1.01 * low), 15)
    field = ax.contourf(x, y, known, levels=levels, norm=LogNorm(levels[0], levels[-1]), cmap=FIELD)
    ax.contour(x, y, known, levels=levels[1:-1], colors="white", linewidths=0.3, alpha=0.6)
    # An inset keeps the height of the field whatever its aspect.
    bar = ax.figure.colorbar(field, cax=ax.inset_axes((1.04, 0, 0.05, 1)))
    bar.set_ticks(_round_numbers(levels[0], levels[-1]))
    bar.ax.yaxis.set_major_formatter("{x:.3g}")
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=font_size(ax))
    bar.set_label(plain(f"{metric}, log scale"), fontsize=font_size(ax))


def _round_numbers(low: float, high: float) -> list[float]:
    """At most eight tick positions: powers of ten, 1, 2, 5 times them, finer numbers, or the two ends."""
    first, last = np.floor(np.log10(low)), np.ceil(np.log10(high))
    powers = 10.0 ** np.arange(first, last + 1, max(1, (last - first) // 6))
    for steps in ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)):
        ticks = np.outer(powers, steps).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) >= 3:
            return list(ticks)
    return [low, high]


def follow(ax: Axes, xy: NDArray[np.float64], distance: NDArray[np.float64], width: float) -> None:
    """Draw a run as circles whose diameter grows with the distance off the plane; name the furthest."""
    ax.plot(*xy.T, color=INK, linewidth=0.6, alpha=0.7, zorder=3)
    _circles(ax, xy, distance / width)
    for share, name in ((0, "run, on the plane"), (0.5, f"{width / 2:.2g} off the plane"), (1, f"{width:.2g} off")):
        _circles(ax, np.empty((0, 2)), np.full(1, share), name)
    furthest = int(np.argmax(distance))
    if distance[furthest] > 0.01 * width:
        ax.annotate(
            f"{distance[furthest]:.2g} off", xy[furthest], xytext=(0, -9), textcoords="offset points", ha="center",
            va="top", fontsize=font_size(ax), path_effects=HALO, zorder=5,
        )  # fmt: skip


def _circles(ax: Axes, xy: NDArray[np.float64], share: NDArray[np.float64], label: str = "") -> None:
    """Draw circles: 3 pt across on the plane, 13 pt at one plane's width off it and beyond."""
    area = (3 + 10 * np.minimum(share, 1)) ** 2
    ax.scatter(
        xy[:, 0], xy[:, 1], s=area, facecolors="none", edgecolors=INK, linewidths=1.1, path_effects=HALO, zorder=3.5,
        clip_on=False, label=label or None,
    )  # fmt: skip


def mark_point(ax: Axes, name: str, mark: Mark, width: float) -> None:
    """Draw a named point; a distance off the plane that matters stands beside its name."""
    x, y, distance = mark
    off = f" ({distance:.2g} off)" if distance > 0.01 * width else ""
    ax.plot([x], [y], marker="X", markersize=9, color="#D55E00", markeredgecolor="white", zorder=4, clip_on=False)
    low, high = ax.get_xlim()
    side = ("left", "center", "right")[int(np.clip(3 * (x - low) / (high - low), 0, 2))]  # the text stays inside
    ax.annotate(
        plain(name + off), (x, y), xytext=(0, 8), textcoords="offset points", ha=side, fontsize=font_size(ax),
        fontweight="bold", path_effects=HALO, zorder=5,
    )  # fmt: skip


def label_plane(ax: Axes, axes: tuple[str, str], split: str, batch_stats: str) -> None:
    """Say what both axes count and what was read; scales are equal unless the plane is long."""
    ax.set_xlabel(wrapped(axes[0], ax, 0.8))
    ax.set_ylabel(wrapped(axes[1], ax, 0.6))
    above = [f"{split} images" if split else "", f"batch statistics: {batch_stats}" if batch_stats else ""]
    ax.set_title(wrapped(", ".join(part for part in above if part), ax, 0.85), loc="left", fontsize=font_size(ax))
    ax.grid(visible=False)
    ax.locator_params(nbins=6)
    spans = np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())
    if max(spans) <= _LONG * min(spans):
        ax.set_aspect("equal")


def legend_below(ax: Axes) -> None:
    """Put the legend under the name of the x axis, where it hides nothing."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        down = ScaledTranslation(0, -3.8 * font_size(ax) / 72, ax.figure.dpi_scale_trans)
        ax.legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=ax.transAxes + down, ncols=2,
            frameon=False, fontsize=font_size(ax), columnspacing=1.2,
        )  # fmt: skip

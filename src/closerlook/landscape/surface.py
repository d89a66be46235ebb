"""Metrics on a plane of weight space, with the points that span it and any others marked on it.

The plane goes through three points, along two directions from one, or where a series of checkpoints moves most.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import nn

from closerlook import figures, files
from closerlook.batches import BatchFn, Loader
from closerlook.errors import UsageError
from closerlook.landscape.directions import DISTANCES, Directions
from closerlook.landscape.grid import GridReader
from closerlook.landscape.metrics import with_error
from closerlook.landscape.reader import BatchStats, Splits, reading
from closerlook.landscape.refine import refine
from closerlook.landscape.subspace import Subspace
from closerlook.landscape.trajectory import Trajectory
from closerlook.weights import WeightSpace


@dataclass(frozen=True)
class Mark:
    """A point shown on the plane: its projection, and how far off the plane it lies (weight distance)."""

    x: float
    y: float
    distance: float


@dataclass(frozen=True, eq=False)
class Surface:
    """Metrics on a grid: `x` [c], `y` [r] in weight distance, `values` by name [r, c], `marks` by name.

    `axes` say what the coordinates count, and `unit` is how long (L2) one of them is; `path` names the marks that are a
    series, in its order.
    `was_read` [r, c] is False where a cell was interpolated; `told` are settings that every number carries, and
    `precision_errors` the largest difference from fp32 where a lower precision was read.
    """

    x: np.ndarray
    y: np.ndarray
    values: Mapping[str, np.ndarray]
    marks: Mapping[str, Mark]
    n: Mapping[str, int]
    batch_stats: BatchStats
    dtype: str
    was_read: np.ndarray
    told: Mapping[str, str] = field(default_factory=dict)
    precision_errors: Mapping[str, float] = field(default_factory=dict)
    axes: tuple[str, str] = DISTANCES
    unit: float = 1.0
    path: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row per grid point."""
        x, y = np.meshgrid(self.x, self.y)
        return pd.DataFrame(
            {
                "x": x.ravel(),
                "y": y.ravel(),
                "read": self.was_read.ravel(),
                **{k: v.ravel() for k, v in self.values.items()},
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and settings, as JSON takes them."""
        return {
            "x": self.x.tolist(), "y": self.y.tolist(), "n": dict(self.n),
            "values": {name: array.tolist() for name, array in self.values.items()},
            "marks": {name: [mark.x, mark.y, mark.distance] for name, mark in self.marks.items()},
            "batch_stats": self.batch_stats, "dtype": self.dtype, "was_read": self.was_read.tolist(),
            "told": dict(self.told), "precision_errors": dict(self.precision_errors), **self._of_directions(),
        }  # fmt: skip

    def _of_directions(self) -> dict[str, Any]:
        """What a plane through three points does not have: its stored form stays what it was."""
        known = {"axes": list(self.axes), "unit": self.unit, "path": list(self.path)}
        return known if known != {"axes": list(DISTANCES), "unit": 1.0, "path": []} else {}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Surface":
        """The surface that `to_dict` wrote."""
        values = {name: np.array(array) for name, array in stored["values"].items()}
        marks = {name: Mark(*mark) for name, mark in stored["marks"].items()}
        return cls(
            np.array(stored["x"]), np.array(stored["y"]), values, marks, stored["n"],
            stored["batch_stats"], stored["dtype"], np.array(stored["was_read"]), stored["told"],
            stored["precision_errors"], tuple(stored.get("axes", DISTANCES)), stored.get("unit", 1.0),
            tuple(stored.get("path", ())),
        )  # fmt: skip

    def plot(self, ax: Axes | None = None, split: str = "train", metric: str = "loss") -> Axes:
        """The metric on the plane, log scale, with the marks and their distance off the plane.

        Of a series its first and last checkpoint are named, the others are circles on its way.

        Raises
        ------
        UsageError
            The split or the metric was not read.
        """
        return figures.surface(
            self.x, self.y, self._read(split, metric), self._named(), trajectory=self._series(), split=split,
            metric=_unit(metric), batch_stats=self.batch_stats, axes=self.axes, unit=self.unit, ax=ax,
        )  # fmt: skip

    def interactive(self, path: str | Path, split: str = "train", metric: str = "loss") -> Path:
        """Write the metric as a surface to turn and zoom, in one HTML file that needs no network.

        Checkpoints stand on the surface, above their projections; their own losses may be others.

        Raises
        ------
        UsageError
            The split or the metric was not read; plotly is not installed.
        """
        page = figures.interactive(
            self.x, self.y, self._read(split, metric), self._named(), trajectory=self._series(), split=split,
            metric=_unit(metric), batch_stats=self.batch_stats, axes=self.axes,
        )  # fmt: skip
        files.write_bytes(Path(path), page.encode())
        return Path(path)

    def _read(self, split: str, metric: str) -> np.ndarray:
        name = f"{split}_{metric}"
        if name not in self.values:
            raise UsageError(f"no {name} here; there is {', '.join(self.values)}")
        return self.values[name]

    def _named(self) -> dict[str, tuple[float, float, float]]:
        """Marks that carry a name: of a series the ends alone."""
        passed = set(self.path[1:-1])
        return {name: (mark.x, mark.y, mark.distance) for name, mark in self.marks.items() if name not in passed}

    def _series(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Coordinates [m, 2] of the series and its distances off the plane [m]."""
        series = [self.marks[name] for name in self.path]
        xy, off = np.array([[mark.x, mark.y] for mark in series]), np.array([mark.distance for mark in series])
        return (xy, off) if series else None


def surface(
    model: nn.Module,
    plane: Subspace | Directions | Trajectory,
    splits: Splits | Loader,
    *,
    grid: tuple[int, int] = (21, 21),
    margin: float = 0.2,
    radius: float | None = None,
    mark: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
    out: str | Path | None = None,
    batch_stats: BatchStats = "recompute",
    stats_loader: Loader | None = None,
    params: str = "*",
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.channels_last,
) -> Surface:
    """Loss and accuracy on a grid over a plane.

    Parameters
    ----------
    plane
        Made by `closerlook.plane`, its three points are marked as w_0, w_1, w_2; directions from a point, marked as w_0
        (`closerlook.random_directions`, `closerlook.hessian_directions`); or a `closerlook.trajectory`, whose
        checkpoints are marked by their names and whose last one is the origin.
    grid
        Number of columns and rows.
    margin
        Added on each side, as a share of the box around all marked points.
    radius
        For directions: how far the grid goes from w_0 to either side of both axes, by default 1; further marks are put
        into the box, and there is no margin.
    mark
        More points by name; each is projected, and its distance off the plane kept.
    tolerance
        Read coarse to fine, and finer only where the coarse grid is bent: elsewhere losses are interpolated, to about
        this share of the loss (0.05: 5 %), as estimated from second differences. Default: every cell is read.
    out
        Folder for finished cells, coarse ones first: the same call goes on there, and several processes with the same
        call share the work.

    Other settings are those of `closerlook.profile`.

    Raises
    ------
    UsageError
        Not a plane, a grid of fewer than two columns or rows, a margin below 0, a radius or a tolerance of nothing, a
        mark with the name of a trajectory's checkpoint.

    Examples
    --------
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> from closerlook.landscape.subspace import plane
    >>> layers = [nn.Linear(4, 4) for _ in range(3)]
    >>> surface(nn.Linear(4, 4), plane(*layers), data, grid=(3, 5)).values["train_loss"].shape
    (5, 3)
    """
    flat = plane if isinstance(plane, Subspace) else plane.plane()
    if not flat.is_flat:
        raise UsageError(f"a surface needs a plane, not a {flat.kind}; make one with closerlook.plane(w_0, w_1, w_2)")
    if min(grid) < 2:
        raise UsageError("a grid needs at least two columns and two rows")
    if not 0 <= margin < inf:
        raise UsageError(f"a margin is a share of the box, from 0 on, not {margin}")
    if tolerance is not None and not tolerance > 0:
        raise UsageError(f"a tolerance is a share of the loss above 0, such as 0.05, not {tolerance}")
    reach = _reach(plane, flat, radius)
    loaders = splits if isinstance(splits, Mapping) else {"train": splits}
    marks = _marks(plane, flat, mark or {}, WeightSpace(model, params))
    x_axis, y_axis = (
        _axis([*(getattr(m, axis) for m in marks.values()), *reach], count, 0 if reach else margin)
        for axis, count in zip("xy", grid, strict=True)
    )
    coords = np.stack([axis.ravel() for axis in np.meshgrid(x_axis, y_axis)], axis=1)
    coefficients = flat.coefficients(coords).reshape(grid[1], grid[0], -1)
    with reading(
        model, flat, loaders, batch_stats=batch_stats, stats_loader=stats_loader, params=params,
        batch_fn=batch_fn, device=device, autocast=autocast, memory_format=memory_format,
    ) as reader:  # fmt: skip
        # The tolerance is not part of the cells' settings: a finer one goes on with the cells of a coarser one.
        units = {"reach": list(flat.reach)} if flat.kind == "directions" else {}
        readings = GridReader(reader, reader.cells(out, coords, **units), coefficients)
        if tolerance is None:
            values, was_read = readings.all()
        else:
            values, was_read = refine(grid[1], grid[0], readings.metrics, tolerance)
        values = with_error(values)
        return Surface(
            x_axis, y_axis, values, marks, readings.n(), batch_stats, reader.told["dtype"], was_read, reader.told,
            readings.precision_errors(), *_counted(plane),
        )  # fmt: skip


def _reach(plane: Subspace | Directions | Trajectory, flat: Subspace, radius: float | None) -> tuple[float, ...]:
    """Coordinates that the grid contains whatever is marked."""
    if radius is not None and flat.kind != "directions":
        raise UsageError("a radius is for directions from one point; around three points the grid takes a margin")
    if radius is not None and not 0 < radius < inf:
        raise UsageError(f"a radius is a number above 0, not {radius}")
    if radius is None and (isinstance(plane, Trajectory) or flat.kind != "directions"):
        return ()
    return -(radius or 1.0), radius or 1.0


def _marks(
    plane: Subspace | Directions | Trajectory, flat: Subspace, others: Mapping[str, Any], space: WeightSpace
) -> dict[str, Mark]:
    """What spans the plane, and the others, each projected."""
    if isinstance(plane, Trajectory):
        own = dict(plane.points)
    else:
        own = {f"w_{i}": point for i, point in enumerate(flat.points[: 1 if flat.kind == "directions" else 3])}
    twice = set(own) & set(others) if isinstance(plane, Trajectory) else ()
    if twice:
        raise UsageError(f"a checkpoint of the trajectory is called {min(twice)!r} too; rename the mark")
    marks = {}
    for name, point in {**own, **{name: space.point(w) for name, w in others.items()}}.items():
        (x, y), off = flat.project(point)
        marks[name] = Mark(float(x), float(y), off)
    return marks


def _counted(plane: Subspace | Directions | Trajectory) -> tuple[tuple[str, str], float, tuple[str, ...]]:
    """What coordinates count, how long one is, and which marks are a series."""
    if isinstance(plane, Subspace):
        return DISTANCES, 1.0, ()
    found = plane.directions if isinstance(plane, Trajectory) else plane
    unit = float(np.mean(found.norms)) if found.reach == (1.0, 1.0) else 1.0
    return found.axes, unit, tuple(plane.points) if isinstance(plane, Trajectory) else ()


def _unit(metric: str) -> str:
    return metric + (" (nats)" if metric == "loss" else "")


def _axis(values: list[float], count: int, margin: float) -> np.ndarray:
    low, high = min(values), max(values)
    return np.linspace(low - margin * (high - low), high + margin * (high - low), count)

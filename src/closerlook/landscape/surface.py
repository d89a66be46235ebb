"""Metrics on a plane of weight space, with the points that span it and any others marked on it."""

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

from closerlook import figures
from closerlook.batches import BatchFn, Loader
from closerlook.errors import UsageError
from closerlook.landscape.grid import GridReader
from closerlook.landscape.metrics import with_error
from closerlook.landscape.reader import BatchStats, Splits, reading
from closerlook.landscape.refine import refine
from closerlook.landscape.subspace import Subspace
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
            "told": dict(self.told), "precision_errors": dict(self.precision_errors),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Surface":
        """The surface that `to_dict` wrote."""
        values = {name: np.array(array) for name, array in stored["values"].items()}
        marks = {name: Mark(*mark) for name, mark in stored["marks"].items()}
        return cls(
            np.array(stored["x"]), np.array(stored["y"]), values, marks, stored["n"],
            stored["batch_stats"], stored["dtype"], np.array(stored["was_read"]), stored["told"],
            stored["precision_errors"],
        )  # fmt: skip

    def plot(self, ax: Axes | None = None, split: str = "train", metric: str = "loss") -> Axes:
        """The metric on the plane, log scale, with the marks and their distance off the plane.

        Raises
        ------
        UsageError
            The split or the metric was not read.
        """
        name = f"{split}_{metric}"
        if name not in self.values:
            raise UsageError(f"no {name} here; there is {', '.join(self.values)}")
        marks = {text: (mark.x, mark.y, mark.distance) for text, mark in self.marks.items()}
        return figures.surface(
            self.x, self.y, self.values[name], marks=marks, split=split, batch_stats=self.batch_stats,
            metric=metric + (" (nats)" if metric == "loss" else ""), ax=ax,
        )  # fmt: skip


def surface(
    model: nn.Module,
    plane: Subspace,
    splits: Splits | Loader,
    *,
    grid: tuple[int, int] = (21, 21),
    margin: float = 0.2,
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
    """Loss and accuracy on a grid over the plane through three points.

    Parameters
    ----------
    plane
        Made by `closerlook.plane`; its three points are marked as w_0, w_1, w_2.
    grid
        Number of columns and rows.
    margin
        Added on each side, as a share of the box around all marked points.
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
        Not a plane, a grid of fewer than two columns or rows, a margin below 0, a tolerance of nothing.

    Examples
    --------
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> from closerlook.landscape.subspace import plane
    >>> layers = [nn.Linear(4, 4) for _ in range(3)]
    >>> surface(nn.Linear(4, 4), plane(*layers), data, grid=(3, 5)).values["train_loss"].shape
    (5, 3)
    """
    if plane.kind != "plane":
        raise UsageError(f"a surface needs a plane, not a {plane.kind}; make one with closerlook.plane(w_0, w_1, w_2)")
    if min(grid) < 2:
        raise UsageError("a grid needs at least two columns and two rows")
    if not 0 <= margin < inf:
        raise UsageError(f"a margin is a share of the box, from 0 on, not {margin}")
    if tolerance is not None and not tolerance > 0:
        raise UsageError(f"a tolerance is a share of the loss above 0, such as 0.05, not {tolerance}")
    loaders = splits if isinstance(splits, Mapping) else {"train": splits}
    space = WeightSpace(model, params)
    others = {name: space.point(w) for name, w in (mark or {}).items()}
    marks = {}
    for name, point in {**{f"w_{i}": point for i, point in enumerate(plane.points)}, **others}.items():
        (x, y), off = plane.project(point)
        marks[name] = Mark(float(x), float(y), off)
    x_axis = _axis([m.x for m in marks.values()], grid[0], margin)
    y_axis = _axis([m.y for m in marks.values()], grid[1], margin)
    coords = np.stack([axis.ravel() for axis in np.meshgrid(x_axis, y_axis)], axis=1)
    coefficients = plane.coefficients(coords).reshape(grid[1], grid[0], -1)
    with reading(
        model, plane, loaders, batch_stats=batch_stats, stats_loader=stats_loader, params=params,
        batch_fn=batch_fn, device=device, autocast=autocast, memory_format=memory_format,
    ) as reader:  # fmt: skip
        # The tolerance is not part of the cells' settings: a finer one goes on with the cells of a coarser one.
        readings = GridReader(reader, reader.cells(out, coords), coefficients)
        if tolerance is None:
            values, was_read = readings.all()
        else:
            values, was_read = refine(grid[1], grid[0], readings.metrics, tolerance)
        values = with_error(values)
        return Surface(
            x_axis, y_axis, values, marks, readings.n(), batch_stats, reader.told["dtype"], was_read, reader.told,
            readings.precision_errors(),
        )  # fmt: skip


def _axis(values: list[float], count: int, margin: float) -> np.ndarray:
    low, high = min(values), max(values)
    return np.linspace(low - margin * (high - low), high + margin * (high - low), count)

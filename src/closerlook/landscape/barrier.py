"""Barriers on straight segments in one line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import nn

from closerlook import figures
from closerlook.batches import BatchFn, Loader
from closerlook.errors import UsageError
from closerlook.landscape.heights import Barrier, Definition, bases
from closerlook.landscape.metrics import HIGHER_IS_WORSE
from closerlook.landscape.profile import profile
from closerlook.landscape.reader import BatchStats
from closerlook.landscape.subspace import line
from closerlook.weights import WeightSpace


@dataclass(frozen=True, eq=False)
class BarrierMatrix:
    """Barriers between all pairs of k points: `pairs` by the numbers (i, j) of their ends, i < j.

    `values` [k, k] are the heights, `low` and `high` [k, k] their intervals (each pair's own, not joint over pairs);
    all are symmetric with a zero diagonal.
    """

    labels: tuple[str, ...]
    pairs: Mapping[tuple[int, int], Barrier]

    @property
    def values(self) -> np.ndarray:
        """Heights [k, k]."""
        return self._matrix("value")

    @property
    def low(self) -> np.ndarray:
        """Low ends of the intervals [k, k]; NaN where a barrier has none."""
        return self._matrix("low")

    @property
    def high(self) -> np.ndarray:
        """High ends of the intervals [k, k]; NaN where a barrier has none."""
        return self._matrix("high")

    def _matrix(self, name: str) -> np.ndarray:
        found = np.zeros(2 * (len(self.labels),))
        for (i, j), barrier in self.pairs.items():
            found[i, j] = found[j, i] = getattr(barrier, name)  # None becomes NaN
        return found

    def to_frame(self) -> pd.DataFrame:
        """The heights with their labels."""
        return pd.DataFrame(self.values, index=list(self.labels), columns=list(self.labels))

    def to_dict(self) -> dict[str, Any]:
        """Labels, heights, intervals (None where there is none), and what all pairs share.

        Of the points on t, whose number differs where a tolerance chose them, the largest number.
        """
        each = next(iter(self.pairs.values())).to_dict()
        shared = ("metric", "split", "definition", "batch_stats", "dtype", "precision", "level", "interval_of")
        ends = {name: _plain(array) for name, array in (("low", self.low), ("high", self.high))}
        return {
            **{name: each[name] for name in shared}, "points": max(pair.points for pair in self.pairs.values()),
            "labels": list(self.labels), "values": self.values.tolist(), **ends,
        }  # fmt: skip

    def plot(self, ax: Axes | None = None) -> Axes:
        """The matrix as a heat map."""
        each = next(iter(self.pairs.values()))
        unit = "nats" if each.metric == "loss" else "share"
        title = f"{each.split} {each.metric} barrier, {each.definition.replace('_', ' ')}"
        return figures.matrix(self.values, self.labels, title=title, unit=unit, ax=ax)


def barrier(
    model: nn.Module,
    a: Any,
    b: Any,
    loader: Loader,
    *,
    points: int = 25,
    metric: str = "loss",
    definition: Definition = "above_ends",
    batch_stats: BatchStats = "recompute",
    stats_loader: Loader | None = None,
    params: str = "*",
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.channels_last,
    tolerance: float | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Barrier:
    """Height of the barrier on the straight segment from a to b; `float` gives the number.

    The settings are those of `closerlook.profile`; the definitions those of its ``barrier``.

    Raises
    ------
    UsageError
        An unknown metric or definition, fewer than two points; and what `closerlook.profile` refuses.

    Examples
    --------
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> layer = nn.Linear(4, 4)
    >>> float(barrier(layer, layer, layer, data, points=3))
    0.0
    """
    # What cannot have a barrier is refused now, not after the reading.
    if metric not in HIGHER_IS_WORSE:
        raise UsageError(f"no barrier of {metric!r}; choose one of {', '.join(HIGHER_IS_WORSE)}")
    if points < 2:
        raise UsageError(f"a barrier needs both ends: at least two points, not {points}")
    bases(np.linspace(0, 1, points), definition)
    space = WeightSpace(model, params)
    path = profile(
        model, line(space.point(a), space.point(b)), {"train": loader}, points, batch_stats=batch_stats,
        stats_loader=stats_loader, params=params, batch_fn=batch_fn, device=device, autocast=autocast,
        memory_format=memory_format, tolerance=tolerance, level=level, seed=seed,
    )  # fmt: skip
    return path.barrier("train", metric, definition, level)


def barrier_matrix(
    model: nn.Module, weights: Sequence[Any], loader: Loader, *, labels: Sequence[str] | None = None, **settings: Any
) -> BarrierMatrix:
    """Barriers between all pairs of points; `settings` are those of `barrier`.

    Raises
    ------
    UsageError
        Fewer than two points, or not one label for each.

    Examples
    --------
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> layer = nn.Linear(4, 4)
    >>> barrier_matrix(layer, [layer, layer, layer], data, points=3).values.tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if len(weights) < 2:
        raise UsageError("a barrier matrix needs at least two points")
    space = WeightSpace(model, settings.get("params", "*"))
    points = [space.point(w) for w in weights]
    names = tuple(labels) if labels is not None else tuple(str(number) for number in range(len(points)))
    if len(names) != len(points):
        raise UsageError(f"{len(names)} labels do not name {len(points)} points; give one for each")
    pairs = combinations(range(len(points)), 2)
    return BarrierMatrix(names, {(i, j): barrier(model, points[i], points[j], loader, **settings) for i, j in pairs})


def _plain(array: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else value for value in row] for row in array.tolist()]

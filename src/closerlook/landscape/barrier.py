"""Barriers on straight segments in one line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import nn

from closerlook import figures
from closerlook.batches import BatchFn, Loader
from closerlook.errors import UsageError
from closerlook.landscape.heights import Barrier, Definition
from closerlook.landscape.profile import profile
from closerlook.landscape.reader import BatchStats
from closerlook.landscape.subspace import line
from closerlook.weights import WeightSpace


@dataclass(frozen=True, eq=False)
class BarrierMatrix:
    """Barriers [k, k] between all pairs of k points, symmetric, with a zero diagonal."""

    values: np.ndarray
    labels: tuple[str, ...]
    settings: Barrier

    def to_frame(self) -> pd.DataFrame:
        """The matrix with its labels."""
        return pd.DataFrame(self.values, index=list(self.labels), columns=list(self.labels))

    def to_dict(self) -> dict[str, Any]:
        """Values, labels, and what all pairs share; the interval of one pair is that of `closerlook.barrier`."""
        own = ("value", "t", "low", "high", "level", "interval_of")
        kept = {name: value for name, value in self.settings.to_dict().items() if name not in own}
        return {**kept, "labels": list(self.labels), "values": self.values.tolist()}

    def plot(self, ax: Axes | None = None) -> Axes:
        """The matrix as a heat map."""
        unit = "nats" if self.settings.metric == "loss" else "share"
        title = f"{self.settings.split} {self.settings.metric} barrier, {self.settings.definition.replace('_', ' ')}"
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

    Examples
    --------
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> layer = nn.Linear(4, 4)
    >>> float(barrier(layer, layer, layer, data, points=3))
    0.0
    """
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
    values = np.zeros((len(points), len(points)))
    for i, first in enumerate(points):
        for j in range(i + 1, len(points)):
            found = barrier(model, first, points[j], loader, **settings)
            values[i, j] = values[j, i] = found.value
    names = tuple(labels) if labels is not None else tuple(str(number) for number in range(len(points)))
    return BarrierMatrix(values, names, found)

"""Metrics along a curve, and the barrier they show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import nn

from closerlook import figures
from closerlook.batches import BatchFn, Loader
from closerlook.errors import UsageError
from closerlook.landscape.reader import BatchStats, Splits, reading
from closerlook.landscape.subspace import Subspace

Definition = Literal["above_ends", "above_mean_of_ends", "above_line"]
_HIGHER_IS_WORSE = {"loss": True, "error": True, "accuracy": False}


@dataclass(frozen=True)
class Barrier:
    """The height of a barrier, where it stands, and what a reader must know to compare it with another."""

    value: float
    t: float
    metric: str
    split: str
    definition: Definition
    points: int
    batch_stats: BatchStats
    dtype: str

    def __float__(self) -> float:
        """The height, in the metric's unit."""
        return self.value

    def to_dict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Profile:
    """Metrics at coordinates t [m] of a curve, by split.

    `values` maps ``"train_loss"`` and the like to arrays [m]; `ends` are the two ends with their own buffers;
    `steps` [m] are the distances in weight space from one point to the next, the first 0.
    """

    t: np.ndarray
    values: Mapping[str, np.ndarray]
    steps: np.ndarray
    n: Mapping[str, int]
    ends: tuple[Mapping[str, float], Mapping[str, float]]
    kind: str
    batch_stats: BatchStats
    dtype: str

    def to_frame(self) -> pd.DataFrame:
        """One row per point: t, distance from the start along the curve, and every metric."""
        return pd.DataFrame({"t": self.t, "distance": np.cumsum(self.steps), **self.values})

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and settings, as JSON takes them."""
        return {
            "kind": self.kind, "batch_stats": self.batch_stats, "dtype": self.dtype, "n": dict(self.n),
            "t": self.t.tolist(), "steps": self.steps.tolist(), "ends": [dict(end) for end in self.ends],
            "values": {name: array.tolist() for name, array in self.values.items()},
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Profile":
        """The profile that `to_dict` wrote."""
        arrays = {name: np.array(array) for name, array in stored["values"].items()}
        first, last = stored["ends"]
        return cls(
            np.array(stored["t"]), arrays, np.array(stored["steps"]), stored["n"], (first, last),
            stored["kind"], stored["batch_stats"], stored["dtype"],
        )  # fmt: skip

    def metric(self, split: str, metric: str) -> np.ndarray:
        """The values [m] of one metric on one split.

        Raises
        ------
        UsageError
            The split or the metric was not read.
        """
        try:
            return self.values[f"{split}_{metric}"]
        except KeyError:
            raise UsageError(f"no {metric} on {split!r} here; there is {', '.join(self.values)}") from None

    def barrier(self, split: str = "train", metric: str = "loss", definition: Definition = "above_ends") -> Barrier:
        """Height of the barrier; for accuracy the depth of the dip.

        With L(t) the metric: ``above_ends`` max L - max(L(0), L(1)); ``above_mean_of_ends`` max L -
        (L(0) + L(1)) / 2 (Frankle et al. 2020, arXiv 1912.05671); ``above_line`` max of L(t) - (1 - t) L(0) -
        t L(1). Never below 0 for the first and the last, since the ends belong to the path.

        Raises
        ------
        UsageError
            An unknown definition, or a profile that does not reach both ends.
        """
        if self.t[0] != 0 or self.t[-1] != 1:
            raise UsageError("a barrier needs both ends: a profile from t = 0 to t = 1")
        values = self.metric(split, metric)
        heights = values if _HIGHER_IS_WORSE[metric] else -values
        base = _base(heights, self.t, definition)
        top = int(np.argmax(heights - base))
        return Barrier(
            float((heights - base)[top]), float(self.t[top]), metric, split, definition,
            len(self.t), self.batch_stats, self.dtype,
        )  # fmt: skip

    def plot(self, ax: Axes | None = None, split: str = "train", metric: str = "loss") -> Axes:
        """The metric along t."""
        unit = f"{split} {metric}" + (" (nats)" if metric == "loss" else "")
        return figures.path(self.t, {}, {self.kind: self.metric(split, metric)}, ylabel=unit, ax=ax)


def _base(heights: np.ndarray, t: np.ndarray, definition: Definition) -> np.ndarray:
    first, last = heights[0], heights[-1]
    bases = {
        "above_ends": np.full_like(t, max(first, last)),
        "above_mean_of_ends": np.full_like(t, (first + last) / 2),
        "above_line": (1 - t) * first + t * last,
    }
    if definition not in bases:
        raise UsageError(f"unknown barrier {definition!r}; choose one of {', '.join(get_args(Definition))}")
    return bases[definition]


def profile(
    model: nn.Module,
    curve: Subspace,
    splits: Splits | Loader,
    points: int | Sequence[float] = 61,
    *,
    batch_stats: BatchStats = "recompute",
    stats_loader: Loader | None = None,
    params: str = "*",
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> Profile:
    """Loss and accuracy along a line, a chain or a Bezier curve.

    Parameters
    ----------
    splits
        Loaders by name, such as ``{"train": loader, "test": test_loader}``; a bare loader counts as train.
    points
        Number of equispaced coordinates, or the coordinates themselves.
    batch_stats
        What batch norm uses at each point: ``"recompute"`` statistics pooled over the examples of
        `stats_loader`, ``"reference"`` their per-batch variances averaged as the reference tools do,
        ``"interpolate"`` the ends' buffers weighted 1 - t and t, ``"keep"`` the model's own.
    stats_loader
        Default the split called train. Better: training images on which no loss is read.

    Raises
    ------
    UsageError
        A plane in place of a curve, weights of another model, batch norm without images for its statistics.

    Examples
    --------
    >>> from closerlook.landscape.subspace import line
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> a, b = nn.Linear(4, 4), nn.Linear(4, 4)
    >>> profile(nn.Linear(4, 4), line(a, b), data, points=5).barrier().points
    5
    """
    if not curve.is_curve:
        raise UsageError(f"a {curve.kind} has no t; use surface for planes")
    coords = np.linspace(0, 1, points) if isinstance(points, int) else np.asarray(points, dtype=np.float64)
    coefficients = curve.coefficients(coords)
    loaders = splits if isinstance(splits, Mapping) else {"train": splits}
    with reading(
        model, curve, loaders, batch_stats=batch_stats, stats_loader=stats_loader, params=params,
        batch_fn=batch_fn, device=device, autocast=autocast,
    ) as reader:  # fmt: skip
        rows = [reader.metrics(row) for row in coefficients]
        ends = (reader.own(0), reader.own(-1))
        counts = dict(reader.counts)
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    dtype = str(curve.points[0].dtype).removeprefix("torch.")
    return Profile(coords, values, curve.steps(coords), counts, ends, curve.kind, batch_stats, dtype)

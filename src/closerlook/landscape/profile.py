"""Metrics along a curve, and the barrier they show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from closerlook.landscape.certify import Certificate
from closerlook.landscape.heights import Barrier, Definition, highest, joint_interval
from closerlook.landscape.intervals import critical
from closerlook.landscape.metrics import HIGHER_IS_WORSE, with_error
from closerlook.landscape.part import read_part
from closerlook.landscape.reader import BatchStats, Splits, reading
from closerlook.landscape.subspace import Subspace
from closerlook.landscape.whole import read_whole


@dataclass(frozen=True, eq=False)
class Profile:
    """Metrics at coordinates t [m] of a curve, by split.

    `values` maps ``"train_loss"`` and the like to arrays [m], `errors` to their standard errors [m] and `covariance`
    to the covariance [m, m] of one image's values along the path; `ends` are the two ends with their own buffers;
    `steps` [m] are the distances in weight space from one point to the next, the first 0. `n` counts the images of a
    split and `images` [m] those read at each point; `evaluations` all forward passes of an image, those for batch-norm
    statistics included. `certificates` are the barriers of a reading to a tolerance. `told` are settings that every
    number carries, and `precision_errors` the largest difference from fp32 where a lower precision was read.
    """

    t: np.ndarray
    values: Mapping[str, np.ndarray]
    steps: np.ndarray
    n: Mapping[str, int]
    ends: tuple[Mapping[str, float], Mapping[str, float]]
    kind: str
    batch_stats: BatchStats
    dtype: str
    errors: Mapping[str, np.ndarray] = field(default_factory=dict)
    covariance: Mapping[str, np.ndarray] = field(default_factory=dict)
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    evaluations: int = 0
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    precision_errors: Mapping[str, float] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """One row per point: t, distance from the start along the curve, and every metric."""
        return pd.DataFrame({"t": self.t, "distance": np.cumsum(self.steps), **self.values})

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and settings, as JSON takes them; of a covariance the upper triangle, row by row."""
        upper = np.triu_indices(len(self.t))
        return {
            "kind": self.kind, "batch_stats": self.batch_stats, "dtype": self.dtype, "n": dict(self.n),
            "t": self.t.tolist(), "steps": self.steps.tolist(), "ends": [dict(end) for end in self.ends],
            "values": _lists(self.values), "errors": _lists(self.errors), "images": _lists(self.images),
            "covariance": {name: array[upper].tolist() for name, array in self.covariance.items()},
            "evaluations": self.evaluations, "told": dict(self.told),
            "certificates": {split: asdict(found) for split, found in self.certificates.items()},
            "precision_errors": dict(self.precision_errors),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Profile":
        """The profile that `to_dict` wrote."""
        first, last = stored["ends"]
        return cls(
            np.array(stored["t"]), _arrays(stored["values"]), np.array(stored["steps"]), stored["n"], (first, last),
            stored["kind"], stored["batch_stats"], stored["dtype"], _arrays(stored["errors"]),
            {name: _symmetric(upper, len(stored["t"])) for name, upper in stored["covariance"].items()},
            _arrays(stored["images"]), stored["evaluations"],
            {split: Certificate(**found) for split, found in stored["certificates"].items()},
            stored["told"], stored["precision_errors"],
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

    def interval(
        self, split: str = "train", metric: str = "loss", level: float = 0.95
    ) -> tuple[np.ndarray, np.ndarray]:
        """Low and high ends [m] that hold at all points at once with probability `level`, over images of this kind.

        Normal intervals with the factor of the largest of m correlated values (`intervals.critical`). Of a reading to a
        tolerance they are about the reading of all images.
        """
        values, name = self.metric(split, metric), f"{split}_{metric}"
        factor = critical(self._known(self.covariance, name), np.eye(len(self.t)), level)
        widths = factor * self.errors[name]
        return values - widths, values + widths

    def difference(
        self, i: int, j: int, split: str = "train", metric: str = "loss", level: float = 0.95
    ) -> tuple[float, float, float]:
        """The metric at point j less that at point i with its interval: estimate, low, high. Paired over images.

        Of a reading to a tolerance it is about the reading of all images, from those that every point was read on.
        """
        name = f"{split}_{metric}"
        values, covariance = self.metric(split, metric), self._known(self.covariance, name)
        row = np.zeros((1, len(self.t)))
        row[0, i], row[0, j] = -1.0, 1.0
        n = int(self.images[split].min())
        left = 1 - n / self.n[split] if split in self.certificates else 1.0
        spread = max((row @ covariance @ row.T).item(), 0.0)
        width = critical(covariance, row, level) * float(np.sqrt(spread * left / n))
        step = float(values[j] - values[i]) if i != j else 0.0
        return step, step - width, step + width

    def barrier(
        self,
        split: str = "train",
        metric: str = "loss",
        definition: Definition = "above_ends",
        level: float | None = None,
    ) -> Barrier:
        """Height of the barrier with its interval; for accuracy the depth of the dip.

        With L(t) the metric: ``above_ends`` max L - max(L(0), L(1)); ``above_mean_of_ends`` max L -
        (L(0) + L(1)) / 2 (Frankle et al. 2020, arXiv 1912.05671); ``above_line`` max of L(t) - (1 - t) L(0) -
        t L(1). Never below 0 for the first and the last, since the ends belong to the path.

        The interval holds for all points at once, with probability `level` (default 0.95): the highest point is not
        known beforehand. After a reading to a tolerance only the certified barrier has one (the loss, above the ends),
        at the level of the reading.

        Raises
        ------
        UsageError
            An unknown definition, a profile that does not reach both ends, a level other than the certified one.
        """
        values, name = self.metric(split, metric), f"{split}_{metric}"
        sign = 1.0 if HIGHER_IS_WORSE[metric] else -1.0
        value, top = highest(sign * values, self.t, definition)
        precision = self.told.get("precision", "unknown")
        about = (metric, split, definition, len(self.t), self.batch_stats, self.dtype, precision)
        if split in self.certificates:
            found = self.certificates[split]
            if metric != "loss" or definition != "above_ends":
                return Barrier(value, float(self.t[top]), *about)
            if level not in (None, found.level):
                raise UsageError(f"this barrier was certified at level {found.level}; read again with level={level}")
            return Barrier(found.value, found.t, *about, found.low, found.high, found.level, "loader")
        if name not in self.covariance:
            return Barrier(value, float(self.t[top]), *about)
        covariance = self.covariance[name]
        level = 0.95 if level is None else level
        low, high = joint_interval(sign * values, covariance, self.n[split], self.t, definition, level)
        return Barrier(value, float(self.t[top]), *about, float(low), float(high), level, "population")

    def _known(self, by_name: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        if name not in by_name:
            raise UsageError(f"{name} came without its spread over images; read the profile again for intervals")
        return by_name[name]

    def plot(self, ax: Axes | None = None, split: str = "train", metric: str = "loss") -> Axes:
        """The metric along t, with its interval over images as a band."""
        unit = f"{split} {metric}" + (" (nats)" if metric == "loss" else "")
        bands = [self.interval(split, metric)] if f"{split}_{metric}" in self.covariance else []
        return figures.path(self.t, {}, {self.kind: self.metric(split, metric)}, ylabel=unit, bands=bands, ax=ax)


def _lists(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: array.tolist() for name, array in arrays.items()}


def _arrays(lists: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in lists.items()}


def _symmetric(upper: Sequence[float], m: int) -> np.ndarray:
    full = np.zeros((m, m))
    full[np.triu_indices(m)] = upper
    return full + np.triu(full, 1).T


def profile(
    model: nn.Module,
    curve: Subspace,
    splits: Splits | Loader,
    points: int | Sequence[float] = 61,
    *,
    tolerance: float | None = None,
    level: float = 0.95,
    seed: int = 0,
    out: str | Path | None = None,
    batch_stats: BatchStats = "recompute",
    stats_loader: Loader | None = None,
    params: str = "*",
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.channels_last,
) -> Profile:
    """Loss and accuracy along a line, a chain or a Bezier curve, with intervals over the images.

    Parameters
    ----------
    splits
        Loaders by name, such as ``{"train": loader, "test": test_loader}``; a bare loader counts as train.
    points
        Number of equispaced coordinates, or the coordinates themselves.
    tolerance
        Read as few images at as few of the points as give the loss barrier of every split, above the worse end, to
        within this many nats of the full reading, with probability `level` (see `closerlook.landscape.certify`); the
        images come in an order drawn from `seed`.
    out
        Folder for finished points: the same call goes on there, and several processes with the same call share the
        work. The result has the bytes of one process.
    batch_stats
        What batch norm uses at each point: ``"recompute"`` statistics pooled over the examples of
        `stats_loader`, ``"reference"`` their per-batch variances averaged as the reference tools do,
        ``"interpolate"`` the ends' buffers weighted 1 - t and t, ``"keep"`` the model's own.
    stats_loader
        Default the split called train. Better: training images on which no loss is read.
    autocast
        A lower precision for the readings; the ends and the highest point are then read in fp32 as well, and the
        largest difference is told. Default fp32 (the weights' own type).
    memory_format
        In which convolutions compute. A network that cannot bear `torch.channels_last` is read in its own; rounding
        differs between the two.

    Raises
    ------
    UsageError
        A plane in place of a curve, no points, weights of another model, batch norm without images for its statistics,
        an `out` that holds another reading.
    LoaderError
        A loader that gives other batches the second time, or a model whose outputs are random; the message names the
        cause.

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
    coords = np.asarray(points if not isinstance(points, int) else np.linspace(0, 1, max(points, 0)), dtype=np.float64)
    if not coords.size:
        raise UsageError("there is no point to read; points is a number from 1 on, or the coordinates t themselves")
    coefficients = curve.coefficients(coords)
    _check_tolerance(tolerance, level, coords)
    loaders = splits if isinstance(splits, Mapping) else {"train": splits}
    with reading(
        model, curve, loaders, batch_stats=batch_stats, stats_loader=stats_loader, params=params,
        batch_fn=batch_fn, device=device, autocast=autocast, memory_format=memory_format,
    ) as reader:  # fmt: skip
        cells = reader.cells(out, coords, tolerance=tolerance, level=level, seed=seed)
        if tolerance is None:
            read = read_whole(reader, cells, coefficients)
        else:
            read = read_part(reader, cells, coords, coefficients, tolerance=tolerance, level=level, seed=seed)
        told = reader.told
    return Profile(
        coords[read.chosen], with_error(read.values), curve.steps(coords[read.chosen]), read.n, read.ends, curve.kind,
        batch_stats, told["dtype"], with_error(read.errors, flip=False), with_error(read.covariance, flip=False),
        read.images, read.evaluations, read.certificates, told, read.precision_errors,
    )  # fmt: skip


def _check_tolerance(tolerance: float | None, level: float, coords: np.ndarray) -> None:
    if not 0 < level < 1:
        raise UsageError(f"level is a probability between 0 and 1, such as 0.95, not {level}")
    if tolerance is None:
        return
    if not tolerance > 0:
        raise UsageError(f"a tolerance is above 0 nats, not {tolerance}")
    if len(coords) < 3 or coords[0] != 0 or coords[-1] != 1 or np.any(np.diff(coords) <= 0):
        raise UsageError("a tolerance is about a barrier: give at least three points, ascending from t = 0 to t = 1")

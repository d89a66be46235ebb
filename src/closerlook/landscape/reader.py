"""Coordinates in, metrics out: one evaluator for lines, curves, planes and simplices."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from closerlook.batches import BatchFn, Feed, Loader, check_loader, feed_for
from closerlook.errors import UsageError
from closerlook.evaluation import batch_norms, estimate_batch_stats, read
from closerlook.landscape.subspace import Subspace, combine
from closerlook.views import FlatViews, borrowed, load_buffers
from closerlook.weights import Point, WeightSpace

BatchStats = Literal["recompute", "reference", "interpolate", "keep"]
Splits = Mapping[str, Loader]


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads metrics at coordinates of a subspace, in a borrowed model.

    All points are read on the same examples, so that differences along a path are sharp.
    """

    model: nn.Module
    subspace: Subspace
    splits: Splits
    policy: BatchStats
    stats_loader: Loader | None
    feed: Feed
    views: FlatViews
    vectors: tuple[Tensor, ...]
    counts: dict[str, int] = field(default_factory=dict)

    def metrics(self, coefficients: np.ndarray) -> dict[str, float]:
        """Metrics such as ``"train_loss"`` of the point with these coefficients [K]."""
        with torch.no_grad():
            combine(coefficients, self.vectors, out=self.views.buffer)
        self._set_statistics(coefficients)
        return self._read()

    def own(self, number: int) -> dict[str, float]:
        """Metrics of a control point with the buffers it came with: the numbers its owner knows."""
        if not self.subspace.points[number].buffers:
            return {}
        with torch.no_grad():
            self.views.buffer.copy_(self.vectors[number])
        load_buffers(self.model, self.subspace.points[number].buffers)
        return self._read()

    def _read(self) -> dict[str, float]:
        self.model.eval()
        metrics: dict[str, float] = {}
        for split, loader in self.splits.items():
            found = read(self.model, loader, self.feed, name=split).to_dict()
            self.counts[split] = found.pop("n")
            metrics |= {f"{split}_{name}": value for name, value in found.items() if value is not None}
        return metrics

    def _set_statistics(self, coefficients: np.ndarray) -> None:
        if self.policy == "interpolate":
            load_buffers(self.model, _mixed_buffers(self.subspace.points, coefficients))
        elif self.policy != "keep" and batch_norms(self.model):
            assert self.stats_loader is not None
            pooling: Literal["pooled", "reference"] = "pooled" if self.policy == "recompute" else "reference"
            estimate_batch_stats(self.model, self.stats_loader, self.feed, pooling)


@contextmanager
def reading(
    model: nn.Module,
    subspace: Subspace,
    splits: Splits,
    *,
    batch_stats: BatchStats,
    stats_loader: Loader | None,
    params: str,
    batch_fn: BatchFn | None,
    device: str | torch.device | None,
    autocast: torch.dtype | None,
) -> Iterator[Reader]:
    """A reader on the borrowed model, which comes back as it was.

    Raises
    ------
    UsageError
        No split, an unknown policy, or batch norm without images to take its statistics from.
    """
    if not splits:
        raise UsageError("there is no split to read; pass loaders by name, such as {'train': loader}")
    for name, loader in splits.items():
        check_loader(loader, name)
    model, feed = feed_for(model, batch_fn, device, autocast)
    stats_loader = _statistics_source(model, splits, batch_stats, stats_loader)
    space = WeightSpace(model, params)
    for number, point in enumerate(subspace.points):
        space.point(point)
        if not bool(torch.isfinite(point.vector).all()):
            raise UsageError(f"point {number} holds NaN: the curve's training diverged; train it with a lower lr")
    if batch_stats == "interpolate" and batch_norms(model):
        _check_buffers(subspace)
    with borrowed(model, space) as views:
        vectors = tuple(views.encode(point.vector) for point in subspace.points)
        yield Reader(model, subspace, splits, batch_stats, stats_loader, feed, views, vectors)


def _statistics_source(
    model: nn.Module, splits: Splits, policy: BatchStats, stats_loader: Loader | None
) -> Loader | None:
    if policy not in get_args(BatchStats):
        raise UsageError(f"unknown batch_stats {policy!r}; choose one of {', '.join(get_args(BatchStats))}")
    if policy in ("interpolate", "keep") or not batch_norms(model):
        return None
    source = stats_loader if stats_loader is not None else splits.get("train")
    if source is None:
        raise UsageError(
            "the model has batch norm, whose statistics must be estimated anew at every point: pass stats_loader "
            "(training images other than those the loss is read on), or a split called 'train'"
        )
    check_loader(source, "stats_loader")
    return source


def _check_buffers(subspace: Subspace) -> None:
    if not subspace.is_curve:
        raise UsageError(
            f"batch_stats='interpolate' mixes the buffers of a curve's two ends; on a {subspace.kind} use 'recompute'"
        )
    points = subspace.points
    bare = [str(number) for number in (0, len(points) - 1) if not points[number].buffers]
    if bare:
        raise UsageError(
            f"batch_stats='interpolate' needs the buffers of both ends, and point {', '.join(bare)} is a bare vector; "
            "make it with WeightSpace(model).point(state_dict)"
        )


def _mixed_buffers(points: tuple[Point, ...], coefficients: np.ndarray) -> dict[str, Tensor]:
    # Inner points of a trained curve have no buffers: the ends' are mixed by the position between them.
    positions = np.linspace(0, 1, len(points))
    t = float(coefficients @ positions)
    first, last = points[0].buffers, points[-1].buffers
    return {
        name: (1 - t) * first[name] + t * last[name] if first[name].is_floating_point() else first[name]
        for name in first
        if name in last
    }

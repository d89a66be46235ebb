"""Coordinates in, metrics out: one evaluator for lines, curves, planes and simplices."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from closerlook.batches import BatchFn, Feed, Loader, check_loader, feed_for, generators_kept, tensors_in
from closerlook.errors import LoaderError, UsageError
from closerlook.evaluation import (
    batch_norms,
    check_repeatable,
    check_statistics,
    estimate_batch_stats,
    other_buffers,
    read,
    settle_spectral_norms,
    statistics_flaw,
)
from closerlook.landscape.cells import Arrays, Cells
from closerlook.landscape.subspace import Subspace, combine
from closerlook.layout import fitting_layout, in_layout
from closerlook.views import FlatViews, borrowed, load_buffers
from closerlook.weights import Point, WeightSpace

BatchStats = Literal["recompute", "reference", "interpolate", "keep"]
Splits = Mapping[str, Loader]
_STATISTICS = ("running_mean", "running_var")
_PRECISIONS = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads examples' losses at coordinates of a subspace, in a borrowed model.

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
    buffers: Mapping[str, Tensor]
    layout: torch.memory_format
    counts: dict[str, int] = field(default_factory=dict)

    def place(self, coefficients: np.ndarray, statistics: Arrays | None = None) -> int:
        """Put the model on the point with these coefficients [K], with these statistics or those of the policy.

        Returns the number of images that were read for statistics.
        """
        images = 0
        with torch.no_grad():
            combine(coefficients, self.vectors, out=self.views.buffer)
        load_buffers(self.model, self.buffers)
        if self.policy in ("recompute", "reference"):
            settle_spectral_norms(self.model)
        if statistics:
            self._load(statistics)
        elif self.policy == "interpolate":
            load_buffers(self.model, _mixed_buffers(self.subspace.points, coefficients))
        elif self.estimates:
            assert self.stats_loader is not None
            pooling: Literal["pooled", "reference"] = "pooled" if self.policy == "recompute" else "reference"
            images = estimate_batch_stats(self.model, self.stats_loader, self.feed, pooling)
            self._count("stats_loader", images)
        self.model.eval()
        return images

    def place_own(self, number: int) -> bool:
        """Put the model on a control point with the buffers it came with; False where it came without usable ones."""
        buffers = self.subspace.points[number].buffers
        if not buffers or statistics_flaw(self.model, buffers) is not None:
            return False
        with torch.no_grad():
            self.views.buffer.copy_(self.vectors[number])
        load_buffers(self.model, buffers)
        self.model.eval()
        return True

    @property
    def estimates(self) -> bool:
        """Whether every point needs a pass for its batch-norm statistics."""
        return self.policy in ("recompute", "reference") and bool(batch_norms(self.model))

    def statistics(self) -> Arrays:
        """The batch-norm statistics that the model has now, by layer."""
        found = {}
        for number, norm in enumerate(batch_norms(self.model)):
            for name in _STATISTICS:
                found[f"{number}.{name}"] = getattr(norm, name).detach().cpu().numpy().copy()
        return found

    def _load(self, statistics: Arrays) -> None:
        with torch.no_grad():
            for number, norm in enumerate(batch_norms(self.model)):
                for name in _STATISTICS:
                    getattr(norm, name).copy_(torch.from_numpy(statistics[f"{number}.{name}"]))

    @property
    def told(self) -> dict[str, Any]:
        """What every number read here must carry."""
        dtype = self.subspace.points[0].dtype
        precision = "fp64" if dtype == torch.float64 and self.feed.autocast is None else _PRECISIONS[self.feed.autocast]
        named = {"dtype": dtype, "layout": self.layout}
        return {
            "batch_stats": self.policy, "precision": precision,
            **{name: str(value).removeprefix("torch.") for name, value in named.items()},
        }  # fmt: skip

    def cells(self, out: str | Path | None, coords: np.ndarray, **settings: Any) -> Cells:
        """Cells in a folder, or in memory; a folder of another reading is refused."""
        return Cells(None, {}) if out is None else Cells(Path(out), {**self._fingerprint(coords), **settings})

    def _fingerprint(self, coords: np.ndarray) -> dict[str, Any]:
        """What makes a reading another one, in plain types: the points, where it reads, how, and on which images."""
        loaders = {**self.splits, **({"statistics": self.stats_loader} if self.stats_loader is not None else {})}
        return {
            **self.told, "kind": self.subspace.kind, "coordinates": _digest([coords]),
            "points": [_digest([point.vector, *point.buffers.values()]) for point in self.subspace.points],
            "first batches": {name: _digest(tensors_in(_first(loader))) for name, loader in loaders.items()},
        }  # fmt: skip

    def in_full_precision(self) -> "Reader":
        """The same reader without autocast."""
        return replace(self, feed=replace(self.feed, autocast=None))

    def values(self) -> dict[str, np.ndarray]:
        """Losses and hits [n] of every split's examples, such as ``"train_loss"`` and ``"train_accuracy"``."""
        found: dict[str, np.ndarray] = {}
        for split, loader in self.splits.items():
            found |= self.values_on(split, loader)
            self._count(split, len(found[f"{split}_loss"]))
        return found

    def _count(self, name: str, n: int) -> None:
        # The probe sees the first batches only.
        if self.counts.setdefault(name, n) != n:
            raise LoaderError(
                f"{name} gave {self.counts[name]} examples at one point and {n} at another: its passes have different "
                "lengths; let every pass give the same batches"
            )

    def values_on(self, split: str, loader: Loader) -> dict[str, np.ndarray]:
        """Losses and hits [n] of a loader's examples, under the name of a split."""
        read_now = read(self.model, loader, self.feed, name=split)
        found = {f"{split}_loss": read_now.losses}
        if read_now.correct is not None:
            found[f"{split}_accuracy"] = read_now.correct.astype(np.float64)
        return found


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
    memory_format: torch.memory_format,
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
    if batch_stats in ("interpolate", "keep"):
        check_statistics(model, (subspace.points[0], subspace.points[-1]), batch_stats)
    buffers = other_buffers(model, subspace.points, batch_stats)
    layout = fitting_layout(model, next(iter(splits.values())), feed, memory_format)
    feed = in_layout(feed, layout)
    with borrowed(model, space, memory_format=layout) as views:
        model.eval()
        probed = splits if stats_loader is None else {**splits, "stats_loader": stats_loader}
        for name, loader in probed.items():
            check_repeatable(model, loader, feed, name)
        vectors = tuple(views.encode(point.vector) for point in subspace.points)
        yield Reader(model, subspace, splits, batch_stats, stats_loader, feed, views, vectors, buffers, layout)


def _first(loader: Loader) -> Any:
    with generators_kept(loader):
        return next(iter(loader))


def _digest(values: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for value in values:
        array = torch.as_tensor(value).detach().cpu().contiguous()
        found.update(f"{array.dtype}{tuple(array.shape)}".encode())
        found.update(array.view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


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

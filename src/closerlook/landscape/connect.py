"""Train the free points of a curve between two networks (Garipov et al. 2018, arXiv 1802.10026)."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from closerlook.batches import BatchFn, Feed, Loader, feed_for
from closerlook.durations import Duration
from closerlook.errors import UsageError
from closerlook.evaluation import other_buffers
from closerlook.landscape.subspace import Kind, Subspace, combine, polychain
from closerlook.layout import fitting_layout, in_layout
from closerlook.schedules import LinearDecay, Schedule
from closerlook.training.flat import CHUNK, FlatOptimizer
from closerlook.training.loop import Observer, descend
from closerlook.training.optimizers import OptimizerFactory, is_elementwise, optimizer_factory
from closerlook.training.session import Plan, Session
from closerlook.views import FlatViews, borrowed, check_type, load_buffers, parameters_of
from closerlook.weights import Point, WeightSpace

_LIKE_THE_PAPER = LinearDecay(begin="0.5dur", end="0.9dur", final=0.01)


def connect(
    model: nn.Module,
    a: Any,
    b: Any,
    loader: Loader,
    kind: Literal["polychain", "bezier"] = "polychain",
    bends: int = 1,
    *,
    epochs: int,
    optimizer: str | OptimizerFactory = "sgd",
    lr: float = 0.015,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: Schedule = _LIKE_THE_PAPER,
    seed: int = 0,
    start: Sequence[Any] = (),
    snapshots: Sequence[Duration] = (),
    observers: Sequence[Observer] = (),
    out: str | Path | None = None,
    params: str = "*",
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.channels_last,
) -> Subspace:
    """A low-loss curve from a to b: the bends minimise the expected training loss along it.

    Each step draws one t ~ U(0, 1) for the whole batch and follows the gradient of
    ``loss(w(t)) + weight_decay / 2 |w(t)|^2``; the gradient of point i is c_i(t) times that of w(t). The ends
    stay fixed; the bends start equally spaced on the segment, or where `start` says. The model is in train mode,
    dropout included.

    Parameters
    ----------
    a, b
        The ends: points, models, state dicts, checkpoint paths or vectors [D].
    start
        Where the bends start, one for each of `bends`: anything that an end may be.
    snapshots
        Times at which the curve is kept, in ``.snapshots`` by step.
    out
        Folder to resume from, as in `closerlook.train`; refused when it holds another curve.
    memory_format
        In which convolutions compute, as `closerlook.layout.fitting_layout` finds it fitting.

    Returns
    -------
    Subspace
        The curve, with ``.history`` and ``.snapshots``. A run that diverged says so in its history.

    Examples
    --------
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> curve = connect(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), data, epochs=2)
    >>> curve.kind, curve.free
    ('polychain', (1,))
    """
    if kind not in ("polychain", "bezier") or bends < 1:
        raise UsageError("connect trains a 'polychain' or a 'bezier' with at least one bend")
    if start and len(start) != bends:
        raise UsageError(f"{len(start)} starting points do not fit bends={bends}; give one for each bend")
    settings = {"momentum": momentum} if isinstance(optimizer, str) else {}
    make = optimizer_factory(optimizer, lr if isinstance(optimizer, str) else None, **settings)
    model, feed = feed_for(model, batch_fn, device, autocast)
    space = WeightSpace(model, params)
    ends = [space.point(a), space.point(b)]
    begun = [space.point(bend) for bend in start]
    polychain([ends[0], *begun, ends[1]])  # refuses unequal types and NaN now, not after the training
    check_type(ends[0].vector, parameters_of(model, space)[0])
    named = {"optimizer": optimizer if isinstance(optimizer, str) else "factory", "lr": lr, "momentum": momentum}
    shape = {"kind": kind, "bends": bends, "params": params, "ends": [_fingerprint(end) for end in ends]}
    others: dict[str, Any] = {"weight_decay": weight_decay, "memory_format": str(memory_format)}
    if begun:
        others["start"] = [_fingerprint(bend) for bend in begun]
    plan = Plan(epochs, schedule, seed, snapshots, settings={**named, **shape, **others})
    session = Session(loader, plan, None if out is None else Path(out))
    layout = session.layout(lambda: fitting_layout(model, loader, feed, memory_format, gradients=True))
    with borrowed(model, space, gradients=True, memory_format=layout) as views:
        # Training fills statistics anew; what else both ends agree on (constants, tables) is part of the network.
        load_buffers(model, other_buffers(model, ends, "interpolate"))
        # Vectors that were made here are held in the order of the buffer alone; a caller's own points stay his.
        own = [end is not source for end, source in zip(ends, (a, b), strict=True)]
        encoded = [views.encode(end.vector) for end in ends]
        ends = [replace(e, vector=v) if made else e for e, v, made in zip(ends, encoded, own, strict=True)]
        rows = [views.encode(bend.vector).clone() for bend in begun] or equally_spaced(encoded, bends)
        task = CurveTask(model.train(), in_layout(feed, layout), views, kind, encoded, rows, weight_decay)
        task.optimizer = FlatOptimizer(make, task.bends, task.gradient, CHUNK if is_elementwise(optimizer) else None)
        tick = session.run(task, observers)
        last = session.snapshots.get(tick.step) or task.snapshot()
        ends = [replace(e, vector=views.decode(e.vector)) if made else e for e, made in zip(ends, own, strict=True)]
    kept = {step: _curve(kind, ends, bent) for step, bent in sorted(session.snapshots.items())}
    return replace(_curve(kind, ends, last), history=tuple(session.journal.rows), snapshots=kept)


def equally_spaced(ends: Sequence[Tensor], bends: int) -> list[Tensor]:
    """New points on the segment between two ends."""
    shares = np.linspace(0, 1, bends + 2)[1:-1]
    return [combine([1 - share, share], ends) for share in shares]


def _curve(kind: Kind, ends: Sequence[Point], bends: Mapping[str, Tensor]) -> Subspace:
    free = tuple(range(1, len(bends) + 1))
    inner = (Point(bends[f"point.{i}"], origin="trained") for i in free)
    return Subspace(kind, (ends[0], *inner, ends[1]), free)


def _fingerprint(end: Point) -> str:
    return hashlib.sha256(end.vector.cpu().contiguous().view(torch.uint8).numpy()).hexdigest()[:16]


class CurveTask:
    """The bends of a curve through a borrowed model, as the session sees them.

    Ends and bends are in the buffer's order; the bends are trained in place.
    """

    optimizer: FlatOptimizer

    def __init__(
        self,
        model: nn.Module,
        feed: Feed,
        views: FlatViews,
        kind: Kind,
        ends: Sequence[Tensor],
        bends: Sequence[Tensor],
        weight_decay: float,
    ) -> None:
        self.model, self.feed, self.views, self.weight_decay = model, feed, views, weight_decay
        assert views.gradient is not None
        self.gradient = views.gradient
        self.bends = list(bends)
        self._vectors = [ends[0], *self.bends, ends[1]]
        self._rule = Subspace(kind, tuple(Point(torch.tensor([float(i)])) for i in range(len(self._vectors))))

    def closure(self, batch: Any, step: int) -> float:
        """Gradient at one random t, and its share for every bend; the loss without the penalty."""
        # The loop has seeded the global generator for this step, so a resumed run draws the same t.
        coefficients = self._rule.coefficients([torch.rand((), dtype=torch.float64).item()])[0]
        with torch.no_grad():
            combine(coefficients, self._vectors, out=self.views.buffer)
            # The gradient begins with that of the penalty, and the backward pass adds to it.
            torch.mul(self.views.buffer, self.weight_decay, out=self.gradient)
        loss = descend(self.model, batch, self.feed)
        self.views.check_gradients()
        self.optimizer.coefficients = coefficients[1:-1].tolist()
        return loss.item()

    def snapshot(self) -> dict[str, Tensor]:
        """The bends as vectors in logical order."""
        return {f"point.{i}": self.views.decode(bend) for i, bend in enumerate(self.bends, 1)}

    def tensors(self) -> dict[str, Tensor]:
        """The bends and the optimizer's state in logical order, the model's buffers."""
        buffers = {f"buffer.{name}": value for name, value in self.model.named_buffers()}
        state = self.optimizer.tensors()
        own = {name: self.views.decode(value) if value.ndim else value for name, value in state.items()}
        return {**self.snapshot(), **own, **buffers}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put `tensors()` back."""
        with torch.no_grad():
            for i, bend in enumerate(self.bends, 1):
                bend.copy_(self.views.encode(tensors[f"point.{i}"]))
            for name, value in self.model.named_buffers():
                value.copy_(tensors[f"buffer.{name}"])
        own = {name: value for name, value in tensors.items() if name.startswith("optimizer.")}
        self.optimizer.load({name: self.views.encode(value) if value.ndim else value for name, value in own.items()})

    def row(self) -> dict[str, Any]:
        """Nothing besides loss and learning rate."""
        return {}

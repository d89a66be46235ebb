"""Train the free points of a curve between two networks (Garipov et al. 2018, arXiv 1802.10026)."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from closerlook.batches import BatchFn, Feed, Loader, feed_for
from closerlook.durations import Duration
from closerlook.errors import UsageError
from closerlook.evaluation import other_buffers
from closerlook.landscape.subspace import Subspace, combine, line
from closerlook.schedules import LinearDecay, Schedule
from closerlook.training.checkpoint import load_optimizer, optimizer_tensors
from closerlook.training.loop import Observer
from closerlook.training.optimizers import OptimizerFactory, build_optimizer
from closerlook.training.session import Plan, Session
from closerlook.views import FlatViews, borrowed, load_buffers
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
    snapshots: Sequence[Duration] = (),
    observers: Sequence[Observer] = (),
    out: str | Path | None = None,
    params: str = "*",
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> Subspace:
    """A low-loss curve from a to b: the bends minimise the expected training loss along it.

    Each step draws one t ~ U(0, 1) for the whole batch and follows the gradient of
    ``loss(w(t)) + weight_decay / 2 |w(t)|^2``; the gradient of point i is c_i(t) times that of w(t). The ends
    stay fixed; the bends start equally spaced on the segment. The model is in train mode, dropout included.

    Parameters
    ----------
    a, b
        The ends: points, models, state dicts, checkpoint paths or vectors [D].
    snapshots
        Times at which the curve is kept, in ``.snapshots`` by step.
    out
        Folder to resume from, as in `closerlook.train`; refused when it holds another curve.

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
    model, feed = feed_for(model, batch_fn, device, autocast)
    space = WeightSpace(model, params)
    ends = (space.point(a), space.point(b))
    line(*ends)  # refuses unequal types and NaN now, not after the training
    named = {"optimizer": optimizer if isinstance(optimizer, str) else "factory", "lr": lr, "momentum": momentum}
    shape = {"kind": kind, "bends": bends, "params": params, "ends": [_fingerprint(end) for end in ends]}
    plan = Plan(epochs, schedule, seed, snapshots, settings={**named, **shape, "weight_decay": weight_decay})
    settings = {"momentum": momentum, "weight_decay": 0.0} if isinstance(optimizer, str) else {}
    with borrowed(model, space, gradients=True) as views:
        # Training fills statistics anew; what else both ends agree on (constants, tables) is part of the network.
        load_buffers(model, other_buffers(model, ends, "interpolate"))
        task = CurveTask(model.train(), feed, views, kind, ends, bends, weight_decay)
        lr_or_none = lr if isinstance(optimizer, str) else None
        task.optimizer = build_optimizer(optimizer, [task.free], lr_or_none, **settings)
        session = Session(task, loader, plan, None if out is None else Path(out))
        session.run(observers)
        kept = {step: task.curve(tensors) for step, tensors in sorted(session.snapshots.items())}
        last = task.curve(task.snapshot())
    return Subspace(kind, last.points, last.free, tuple(session.journal.rows), kept)


def _fingerprint(end: Point) -> str:
    return hashlib.sha256(end.vector.cpu().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


class CurveTask:
    """The free points of a curve through a borrowed model, as the session sees them."""

    optimizer: torch.optim.Optimizer

    def __init__(
        self,
        model: nn.Module,
        feed: Feed,
        views: FlatViews,
        kind: Literal["polychain", "bezier"],
        ends: tuple[Point, Point],
        bends: int,
        weight_decay: float,
    ) -> None:
        self.model, self.feed, self.views, self.weight_decay = model, feed, views, weight_decay
        self.kind, self.ends = kind, ends
        a, b = (views.encode(end.vector) for end in ends)
        shares = np.linspace(0, 1, bends + 2)[1:-1]
        self.free = nn.Parameter(torch.stack([combine([1 - share, share], [a, b]) for share in shares]))
        assert views.gradient is not None
        self._gradient = views.gradient
        # With one bend its gradient is the network's own, scaled in place: no further copy of the weights.
        self.free.grad = self._gradient[None] if bends == 1 else torch.zeros_like(self.free)
        self._vectors = [a, *self.free.detach(), b]
        self._rule = Subspace(
            kind, tuple(Point(torch.tensor([float(share)])) for share in np.linspace(0, 1, bends + 2))
        )

    def closure(self, batch: Any, step: int) -> float:
        """Gradients of the free points at one random t; the loss without the penalty."""
        # The loop has seeded the global generator for this step, so a resumed run draws the same t.
        coefficients = self._rule.coefficients([torch.rand((), dtype=torch.float64).item()])[0]
        with torch.no_grad():
            combine(coefficients, self._vectors, out=self.views.buffer)
        self._gradient.zero_()
        loss = self.feed(self.model, batch).loss.mean()
        loss.backward()
        self.views.check_gradients()
        with torch.no_grad():
            self._gradient.add_(self.views.buffer, alpha=self.weight_decay)
            assert self.free.grad is not None
            for grad, c in zip(self.free.grad, coefficients[1:-1], strict=True):
                torch.mul(self._gradient, float(c), out=grad)
        return loss.item()

    def snapshot(self) -> dict[str, Tensor]:
        """The free points as vectors in logical order."""
        return {f"point.{i}": self.views.decode(row) for i, row in enumerate(self.free.detach(), 1)}

    def curve(self, snapshot: Mapping[str, Tensor]) -> Subspace:
        """The curve of a snapshot."""
        inner = tuple(Point(snapshot[f"point.{i}"], origin="trained") for i in range(1, len(self.free) + 1))
        return Subspace(self.kind, (self.ends[0], *inner, self.ends[1]), tuple(range(1, len(self.free) + 1)))

    def tensors(self) -> dict[str, Tensor]:
        """The free points as the buffer holds them, the optimizer's state, the model's buffers."""
        buffers = {f"buffer.{name}": value for name, value in self.model.named_buffers()}
        return {"free": self.free.detach(), **optimizer_tensors(self.optimizer), **buffers}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put `tensors()` back."""
        with torch.no_grad():
            self.free.copy_(tensors["free"])
            for name, value in self.model.named_buffers():
                value.copy_(tensors[f"buffer.{name}"])
        load_optimizer(self.optimizer, tensors)

    def row(self) -> dict[str, Any]:
        """Nothing besides loss and learning rate."""
        return {}

"""Train a copy of a network."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from closerlook.batches import BatchFn, Feed, Loader, feed_for
from closerlook.durations import Duration
from closerlook.evaluation import modes_kept, read
from closerlook.layout import fitting_layout, in_layout, lay_out
from closerlook.schedules import Constant, Schedule
from closerlook.training.checkpoint import load_optimizer, optimizer_tensors
from closerlook.training.flat import FlatOptimizer
from closerlook.training.interventions import Altered, AlteredOptimizer, Intervention, Subject
from closerlook.training.loop import Observer, Stepper, descend, seekable
from closerlook.training.observers import Instrument, bound
from closerlook.training.optimizers import OptimizerFactory, optimizer_factory
from closerlook.training.session import Plan, Session
from closerlook.views import FlatViews
from closerlook.weights import Point, WeightSpace, named


@dataclass(frozen=True, eq=False)
class TrainResult:
    """A finished training: the last point, one row per epoch, the snapshots by step.

    `diverged_at` is the number of steps after which the loss or the weights were not finite, or None. `exact_resume`
    says whether the loader allows a resume inside an epoch. `observations` are the rows that observers and
    interventions gave, each with its step.
    """

    point: Point
    history: tuple[Mapping[str, Any], ...]
    snapshots: Mapping[int, Point]
    diverged_at: int | None
    exact_resume: bool
    observations: tuple[Mapping[str, Any], ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """The history, one row per epoch."""
        return pd.DataFrame(list(self.history))

    def to_dict(self) -> dict[str, Any]:
        """The history and the outcome, without tensors."""
        return {"history": [dict(row) for row in self.history], "diverged_at": self.diverged_at}


def train(
    model: nn.Module,
    loader: Loader,
    optimizer: str | OptimizerFactory = "sgd",
    *,
    epochs: int,
    lr: float | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    schedule: Schedule | None = None,
    seed: int = 0,
    validation: Loader | None = None,
    snapshots: Sequence[Duration] = (),
    forks: Sequence[Duration] = (),
    start: str | Path | None = None,
    interventions: Sequence[Intervention] = (),
    observers: Sequence[Observer | Instrument] = (),
    out: str | Path | None = None,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.channels_last,
) -> TrainResult:
    """Train a copy of `model`; the caller's own is untouched.

    Parameters
    ----------
    optimizer
        ``"sgd"``, ``"adam"``, ``"adamw"``, or a factory from parameters to a torch optimizer.
    schedule
        Factor of the learning rate by step; default constant.
    seed
        Of what the model itself draws (dropout), and of the order of a foreign loader; our own loaders carry
        their seeds.
    validation
        Loader read after every epoch.
    snapshots, forks
        Times at which the weights, or the whole state (weights, buffers, optimizer), are kept. Time 0 and
        the end are always snapshots. Forks need `out`.
    start
        A fork of another run to begin from, in place of the model's own weights and an empty optimizer.
    interventions
        What is changed: freezes, learning rates of single blocks, clipping, other losses; see
        `closerlook.training.interventions`. They act together, in this order.
    observers
        Called with a `Tick` before the first step and after every step; a mapping that one returns is kept in
        ``.observations``. Or instruments, which are bound to the network first (`closerlook.LayerTrace`).
    out
        Folder for ``metrics.jsonl``, ``checkpoints/`` and ``state.safetensors``. The same call goes on from
        the last state; with our loaders it ends with the bytes of an uninterrupted run.
    memory_format
        In which convolutions compute, as `closerlook.layout.fitting_layout` finds it fitting.

    Raises
    ------
    UsageError
        No step to take, an unknown optimizer, settings that do not fit it; an `out` that holds another training.

    Examples
    --------
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> train(nn.Linear(4, 4), data, lr=0.1, epochs=2).point.vector.shape
    torch.Size([20])
    """
    make = optimizer_factory(optimizer, lr, momentum=momentum, weight_decay=weight_decay)
    named = {"optimizer": optimizer if isinstance(optimizer, str) else "factory", "lr": lr}
    others = {"momentum": momentum, "weight_decay": weight_decay, "memory_format": str(memory_format)}
    settings = {**named, **others, "interventions": [repr(each) for each in interventions]}
    plan = Plan(epochs, schedule or Constant(), seed, snapshots, forks, settings)
    session = Session(loader, plan, _path(out), _path(start))
    own, feed = feed_for(copy.deepcopy(model), batch_fn, device, autocast)
    layout = session.layout(lambda: fitting_layout(own, loader, feed, memory_format, gradients=True))
    # Adam counts the steps of every parameter: one that a step does not reach must not age with the others.
    task = NetworkTask(own, in_layout(feed, layout), make, optimizer == "sgd", validation, layout)
    subject = task.subject(session)
    altered = task.alter(interventions, subject)
    tick = session.run(task, [altered, *bound(observers, subject)])
    return TrainResult(
        task.space.point(task.snapshot()),
        tuple(session.journal.rows),
        {step: task.space.point(state) for step, state in sorted(session.snapshots.items())},
        tick.step if tick.diverged else None,
        seekable(loader),
        tuple(session.observations.rows),
    )


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


class NetworkTask:
    """A network, its loss and its optimizer, as the session sees them."""

    inner: FlatOptimizer | Optimizer
    optimizer: Stepper
    altered: Altered

    def __init__(
        self,
        model: nn.Module,
        feed: Feed,
        make: OptimizerFactory,
        flat: bool,
        validation: Loader | None,
        memory_format: torch.memory_format,
    ) -> None:
        self.model, self.feed, self.validation = model.train(), feed, validation
        self.space = WeightSpace(model)
        self.views: FlatViews | None = None
        trained = [value for value in model.parameters() if value.requires_grad]
        # One vector in place of many small tensors gives the same bits in fewer calls; it needs every
        # parameter to be trained, and an optimizer that treats every entry by itself.
        if flat and len(trained) == len(self.space.names):
            self.views = FlatViews(model, self.space, gradients=True, memory_format=memory_format)
            assert self.views.gradient is not None
            self.inner = FlatOptimizer(make, [self.views.buffer], self.views.gradient)
        else:
            lay_out(model, memory_format)
            self.inner = make(trained)
        self.optimizer = self.inner

    def subject(self, session: Session) -> Subject:
        """The network in this session, for interventions and observers."""
        trained = {name: value for name, value in named(self.model).parameters.items() if value.requires_grad}
        owned = {name: trained[name] for name in self.space.names if name in trained}
        optimizer = self.inner.first if isinstance(self.inner, FlatOptimizer) else self.inner
        stored = named(self.model).stored

        def start() -> dict[str, Tensor]:
            state = session.first()
            return {name: state[stored[name]] for name in owned}

        return Subject(self.model, owned, session.clock, session.loader, self.feed, optimizer, start)

    def alter(self, interventions: Sequence[Intervention], subject: Subject) -> Altered:
        """Train with these interventions."""
        self.altered = Altered(interventions, subject)
        self._parameters, self._trained = subject.parameters, self.altered.feed(self.feed)
        self.optimizer = AlteredOptimizer(self.inner, self.altered) if interventions else self.inner
        return self.altered

    def closure(self, batch: Any, step: int) -> float:
        """Gradients of the batch's mean loss."""
        self.altered.begin(step)
        if self.views is None:
            self.model.zero_grad()
            loss = descend(self.model, batch, self._trained)
            for name in self.altered.after_backward():
                self._parameters[name].grad = None
            return loss.item()
        assert isinstance(self.inner, FlatOptimizer)
        self.views.release()
        loss = descend(self.model, batch, self._trained)
        unreached = self.views.collect()
        held = self.altered.after_backward()
        for name in held:
            self._parameters[name].grad.zero_()  # type: ignore[union-attr]  # `collect` has set it
        self.inner.untouched = [*unreached, *(span for name, _, span in self.space.slices() if name in held)]
        return loss.item()

    def snapshot(self) -> dict[str, Tensor]:
        """The state dict, in logical order, detached from the buffer."""
        kept = torch.contiguous_format
        return {name: value.detach().clone(memory_format=kept) for name, value in self.model.state_dict().items()}

    def tensors(self) -> dict[str, Tensor]:
        """Weights, buffers and the optimizer's state, all in logical order: a fork may have another memory format."""
        model = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if isinstance(self.inner, FlatOptimizer):
            assert self.views is not None
            own = self.inner.tensors()
            return {**model, **{name: self.views.decode(v) if v.ndim else v for name, v in own.items()}}
        return {**model, **optimizer_tensors(self.inner)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy weights and buffers into the model's own tensors, whose memory format stays."""
        state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        self.model.load_state_dict(state)
        own = {name: value for name, value in tensors.items() if name.startswith("optimizer.")}
        if isinstance(self.inner, FlatOptimizer):
            assert self.views is not None
            self.inner.load({name: self.views.encode(v) if v.ndim else v for name, v in own.items()})
        else:
            load_optimizer(self.inner, own)

    def row(self) -> dict[str, Any]:
        """Norm of the weights and the validation metrics."""
        weights = [value.detach() for value in self.model.parameters()]
        norms = [float(torch.linalg.vector_norm(value, dtype=torch.float64)) for value in weights]
        row: dict[str, Any] = {"weight_norm": math.hypot(*norms)}
        if self.validation is not None:
            with modes_kept(self.model):
                self.model.eval()
                result = read(self.model, self.validation, self.feed, name="validation")
            row |= {"validation_loss": result.loss, "validation_accuracy": result.accuracy}
        return row

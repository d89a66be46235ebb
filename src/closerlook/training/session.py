"""A training with its folder: journal, snapshots, forks, the state to go on from. Shared by networks and curves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from closerlook import files
from closerlook.batches import Loader, check_loader
from closerlook.durations import Clock, Duration, to_steps
from closerlook.errors import LoaderError, StoreError, UsageError
from closerlook.schedules import Schedule
from closerlook.training.checkpoint import Journal, StateFile
from closerlook.training.loop import Observer, Resuming, Stepper, Tick, optimise, seekable

OBSERVATIONS = "observations.jsonl"


class Task(Protocol):
    """What is trained: it fills gradients, and can be looked at, saved and put back."""

    @property
    def optimizer(self) -> Stepper:
        """What takes the steps."""

    def closure(self, batch: Any, step: int) -> float:
        """Fill the gradients for one batch; the loss."""

    def snapshot(self) -> dict[str, Tensor]:
        """The weights as named tensors."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put `tensors()` back."""

    def row(self) -> dict[str, Any]:
        """What to note at the end of an epoch, besides loss and learning rate."""


@dataclass(frozen=True)
class Plan:
    """How long, at what rates, with what seed, and what is kept on the way.

    `settings` are any others, in plain JSON types: a folder goes on only with the same ones.
    """

    epochs: int
    schedule: Schedule
    seed: int = 0
    snapshots: Sequence[Duration] = ()
    forks: Sequence[Duration] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Session:
    """One training from its last state to its end; what cannot work is refused before anything is built.

    Without a folder everything stays in memory; with one, the same call goes on where it was stopped.
    """

    loader: Loader
    plan: Plan
    out: Path | None = None
    start: Path | None = None
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_loader(self.loader)
        try:
            steps = len(self.loader)  # type: ignore[arg-type]
        except TypeError as error:
            raise LoaderError("training needs a loader with a length: it is what an epoch means") from error
        self.clock = Clock(steps, self.plan.epochs * steps)
        if self.clock.total_steps < 1:
            raise UsageError(f"{self.plan.epochs} epochs of {steps} batches leave no step to take")
        self._kept = {to_steps(time, self.clock) for time in (0, *self.plan.snapshots, "1dur")}
        self._forks = {to_steps(time, self.clock) for time in self.plan.forks}
        self._check_times()
        self._state = StateFile(self._file("state.safetensors"))
        self._written, self._found = set[str](), dict[str, str]()
        self._saved = self._read()

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        if self.out is not None:
            files.remove_temporaries(self.out)
        saved = self._state.read()
        if saved is not None:
            if "observations" not in saved[1]:
                raise self._state.unusable("it was written by another version of closerlook")
            self._check(saved[1]["call"])
            self._found = saved[1]["found"]
        return saved

    def layout(self, find: Callable[[], torch.memory_format]) -> torch.memory_format:
        """The memory format that this training found fitting when it began, kept in its state; or found now."""
        if "layout" not in self._found:
            self._found["layout"] = str(find())
        return getattr(torch, self._found["layout"].removeprefix("torch."))

    def _check_times(self) -> None:
        late = [step for step in (*self._kept, *self._forks) if step > self.clock.total_steps]
        if late:
            raise UsageError(
                f"a snapshot or fork at step {max(late)} lies after the end, step {self.clock.total_steps}"
            )
        inside = [step for step in self._forks if step % self.clock.steps_per_epoch]
        if inside:
            raise UsageError(
                f"a fork at step {inside[0]} lies inside an epoch, from where no other run can go on; "
                f"take it at a multiple of {self.clock.steps_per_epoch} steps"
            )
        if self._forks and self.out is None:
            raise UsageError("forks are files: pass out, the folder to keep them in")

    def run(self, task: Task, observers: Sequence[Observer] = ()) -> Tick:
        """Train the task to the end; returns the last tick."""
        self.task = task
        tick = self._begin()
        for observe in observers if tick.step else ():
            if isinstance(observe, Resuming):
                observe.resume(tick)
        factor = self.plan.schedule.factor(self.clock)
        # The state comes last: a run that is stopped in an observer shows it the same step again.
        watchers = [self._look, self._record, self._ask(observers), self._keep]
        tick = optimise(self.task.closure, self.task.optimizer, factor, self.loader, tick, watchers, self.plan.seed)
        for step in sorted(self._kept - set(self.snapshots)):
            path = self._file(f"checkpoints/step-{step:06d}.safetensors")
            if path is not None and path.exists():
                self.snapshots[step] = files.read_tensors(path)[0]
        return tick

    def first(self) -> dict[str, Tensor]:
        """The weights of step 0, also in a run that goes on."""
        if 0 not in self.snapshots:
            path = self._file("checkpoints/step-000000.safetensors")
            if path is None or not path.exists():
                raise UsageError("the weights of step 0 are not there yet: ask from the first step on")
            self.snapshots[0] = files.read_tensors(path)[0]
        return self.snapshots[0]

    def _begin(self) -> Tick:
        saved, self._saved = self._saved, None
        tick = Tick(0, self.clock.total_steps, self.clock.steps_per_epoch)
        self._loss_sum, self._losses = 0.0, 0
        if saved is not None:
            tensors, note = saved
            tick.step, tick.first_epoch, tick.diverged = note["step"], note["first_epoch"], note["diverged"]
            self._loss_sum, self._losses = note["loss_sum"], note["losses"]
            self.journal = Journal(self._file("metrics.jsonl"), tick.step, tick.diverged)
            self.observations = Journal(self._file(OBSERVATIONS), tick.step, tick.diverged, rare=True)
            self._written = set(note["written"])
            self._check_what_was_before(note["journal"], note["observations"])
            self.task.load(tensors)
            return tick
        self.journal = Journal(self._file("metrics.jsonl"), tick.step)
        self.observations = Journal(self._file(OBSERVATIONS), tick.step - 1, rare=True)
        if self.start is not None:
            tensors, note = files.read_tensors(self.start)
            if "fork" not in note:
                raise UsageError(
                    f"{self.start} is not a fork (it lacks the optimizer's state); pass a fork-*.safetensors"
                )
            tick.first_epoch = round(note["epoch"])
            self.task.load(tensors)
        return tick

    def _check_what_was_before(self, journal: str, observations: str) -> None:
        # What is on the disk from before the state is not made again: it must be what it was.
        if self.journal.digest != journal:
            raise self._state.unusable("rows of metrics.jsonl from before it are lost or changed")
        if self.observations.digest != observations:
            raise self._state.unusable(f"rows of {OBSERVATIONS} from before it are lost or changed")
        for name in self._written:
            try:
                files.read_tensors(self._file(name) or name)
            except StoreError as error:
                raise self._state.unusable(str(error)) from error

    def _call(self) -> dict[str, Any]:
        steps, plan = self.clock.steps_per_epoch, self.plan
        length = {"epochs": plan.epochs, "steps_per_epoch": steps, "seed": plan.seed}
        kept = {"snapshots": sorted(self._kept), "forks": sorted(self._forks)}
        return {**length, **kept, "schedule": repr(plan.schedule), **plan.settings}

    def _check(self, earlier: Mapping[str, Any]) -> None:
        now = self._call()
        other = [name for name in now if name not in earlier or earlier[name] != now[name]]
        if other:
            raise UsageError(
                f"{self.out} holds a training with another {' and '.join(other)}; give this one a folder of its own, "
                "or delete that one"
            )

    def _look(self, tick: Tick) -> None:
        # The loss of the next step would tell of weights that are not finite; they must not be kept as a point before.
        if tick.step in self._kept | self._forks and not tick.diverged:
            weights = self.task.snapshot()
            tick.diverged = not all(bool(value.isfinite().all()) for value in weights.values())
            if tick.step in self._kept and not tick.diverged:
                self.snapshots[tick.step] = weights

    def _record(self, tick: Tick) -> None:
        if tick.diverged:
            self.journal.add({"step": tick.step, "epoch": tick.epoch, "diverged": True})
        elif tick.step > 0:
            self._loss_sum, self._losses = self._loss_sum + tick.loss, self._losses + 1
        if tick.ends_epoch and self._losses and not tick.diverged:
            mean = self._loss_sum / self._losses
            self.journal.add({"step": tick.step, "epoch": tick.epoch, "lr": tick.lr, "loss": mean, **self.task.row()})
            self._loss_sum, self._losses = 0.0, 0

    def _ask(self, observers: Sequence[Observer]) -> Observer:
        def ask(tick: Tick) -> None:
            answers = [observe(tick) for observe in observers]
            row = {key: value for told in answers if isinstance(told, Mapping) for key, value in told.items()}
            # A state may be that of step 0, which a resumed run shows its observers again.
            if row and (tick.step, tick.diverged) != self._observed():
                self.observations.add({"step": tick.step, **row, **({"diverged": True} if tick.diverged else {})})

        return ask

    def _observed(self) -> tuple[int, bool]:
        last = self.observations.rows[-1] if self.observations.rows else {"step": -1}
        return last["step"], "diverged" in last

    def _keep(self, tick: Tick) -> None:
        note = {"step": tick.step, "epoch": tick.epoch, "first_epoch": tick.first_epoch}
        if tick.step in self._kept and not tick.diverged:
            self._write(f"checkpoints/step-{tick.step:06d}.safetensors", self.snapshots[tick.step], note)
        if tick.step in self._forks and not tick.diverged:
            self._write(f"checkpoints/fork-{tick.step:06d}.safetensors", self.task.tensors(), {**note, "fork": True})
        # A foreign loader can only go on at the start of an epoch.
        may_stop = tick.ends_epoch or seekable(self.loader)
        if tick.diverged or tick.step == tick.total or (may_stop and self._state.due()):
            losses = {"loss_sum": self._loss_sum, "losses": self._losses}
            rows = {"journal": self.journal.digest, "observations": self.observations.digest}
            before = {**rows, "written": sorted(self._written), "found": self._found}
            self.journal.sync()
            self.observations.sync()
            told = {**note, **losses, **before, "diverged": tick.diverged, "call": self._call()}
            self._state.write(self.task.tensors(), told)

    def _write(self, name: str, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
        # Every step is passed once, but for those after a kill: their files are made again, with the same bytes.
        path = self._file(name)
        if path is not None:
            files.write_tensors(path, tensors, note)
            self._written.add(name)

    def _file(self, name: str) -> Path | None:
        return None if self.out is None else self.out / name

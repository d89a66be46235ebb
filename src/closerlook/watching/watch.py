"""Watch the first steps of a training that somebody else runs."""

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from torch import nn
from torch.optim import LBFGS, Optimizer

from closerlook.batches import BatchFn, Loader
from closerlook.errors import UsageError
from closerlook.watching.moves import Moves
from closerlook.watching.probe import Probe, rate_of
from closerlook.watching.report import WatchReport
from closerlook.weights import WeightSpace, named
from closerlook.weights.blocks import Blocks, blocks_of

_PRODUCTS, _TRIES = 12, 10  # of a typical reading: Hessian-vector products of Lanczos, losses along the step


class watch:  # noqa: N801  # it reads as a verb: with watch(model, optimizer) as w
    """Watch the first steps of your own training loop, and say which block is unstable, at which rate, for how long.

    Around the loop: ``with cl.watch(model, optimizer, probe=[batch]) as w: ...``; then ``print(w)``. In callbacks
    `start` and `stop` do the same. It hangs two hooks on the optimizer, which go away after `steps` steps, at the end
    and after an exception. The training goes as it would without: weights, gradients, buffers, modes and generators
    are left as they were, bit by bit.

    At every step it notes per block gradient norm, relative and angular update, distance and similarity to the start
    (as `LayerTrace`), and whatever is not finite. With a probe also, before every `every`-th step, and before steps
    1, 2, 4, ... of the first `every`:

    - the largest eigenvalue of the Hessian on the probe, by `sharpness`, with the share of each block in its vector
      (preconditioned for Adam and AdamW, from their first step on);
    - beside it the `stability_threshold` of the learning rate in use;
    - each block's own sharpness, from the first reading at which the whole is above the threshold (before, no block can
      be: a diagonal block is never sharper) until a block is, at no more than five readings;
    - the `critical_lr` along the step that the optimizer would take.

    Parameters
    ----------
    model, optimizer
        As in your loop. Wrappers that hold the optimizer as ``.optimizer`` (Accelerate, Lightning) will do.
    probe
        Fixed batches, the same at every reading, such as ``[batch]``: a few hundred examples. Not shuffled.
    batch_fn
        As everywhere; default: cross-entropy over ``(x, y)``.
    steps
        Steps that are watched; afterwards it costs nothing.
    every
        Steps between two readings of the probe.
    blocks
        Patterns of parameter names by block, ``{"body": "layers.*", "head": "head.*"}``; by default every layer that
        owns parameters is one.

    Raises
    ------
    UsageError
        An optimizer that trains nothing of the model, one that calls the loss many times a step (L-BFGS), with a probe
        one whose threshold is not known; a block without parameters; numbers below 1.
    LoaderError
        A probe that is empty, can be iterated once only, or does not repeat.

    Notes
    -----
    Cost: two copies of the weights and about six passes over them per step; a reading of the probe is about 30 forward
    and backward passes over it (`cost`, said on stderr at the start; `seconds` and `share` are measured).

    Examples
    --------
    >>> import torch
    >>> model, batch = nn.Linear(4, 4), (torch.eye(4), torch.arange(4))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with watch(model, optimizer) as w:
    ...     for _ in range(3):
    ...         nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()
    >>> w.report().taken, sorted(w.to_dict()["moves"][0]["blocks"])
    (3, ['(model)'])
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        probe: Loader | None = None,
        batch_fn: BatchFn | None = None,
        steps: int = 300,
        every: int = 10,
        blocks: Blocks | None = None,
    ) -> None:
        if steps < 1 or every < 1:
            raise UsageError(f"steps={steps} and every={every} watch nothing; give at least 1")
        self._optimizer = _unwrapped(optimizer)
        names = _trained(model, self._optimizer)
        self._blocks = blocks_of(names, blocks or True)
        self._probe = None if probe is None else Probe(model, self._optimizer, probe, self._blocks, batch_fn)
        self._steps, self._every, self._taken = steps, every, 0
        self._parameters = {name: named(model).parameters[name] for name in names}
        self._moves: Moves | None = None
        self._rows: list[dict[str, Any]] = []
        self._readings: list[dict[str, Any]] = []
        self._not_finite: list[dict[str, Any]] = []
        self._handles: list[Any] = []
        self._rate = 0.0
        self._started, self._watched = 0.0, 0.0
        self.seconds = 0.0
        self.cost: dict[str, Any] = self._price()

    def _price(self) -> dict[str, Any]:
        numbers = sum(value.numel() * value.element_size() for value in self._parameters.values())
        readings = 0 if self._probe is None else sum(map(self._due, range(self._steps)))
        # Of single blocks one or two readings are the rule.
        by_block = min(readings, 2) * len(self._blocks) * _PRODUCTS
        passes = readings * (1 + 2 * _PRODUCTS + 2 + _TRIES // 3) + by_block
        return {"steps": self._steps, "bytes": 2 * numbers, "readings": readings, "passes": passes, "seconds": None}

    def start(self) -> "watch":
        """Begin to watch; says on stderr what a probe will cost.

        Raises
        ------
        UsageError
            It was started before: one watch is for one training. Or the network cannot be differentiated twice.
        """
        if self._moves is not None:
            raise UsageError("this watch was started before; make another one for another training")
        if self._probe is not None:
            self.cost["seconds"] = self.cost["passes"] * self._probe.seconds_per_pass()
            print(f"closerlook: {self._priced()}", file=sys.stderr, flush=True)
        own = {block: [self._parameters[name] for name in names] for block, names in self._blocks.items()}
        self._moves = Moves(own)
        hooks = self._optimizer
        self._handles = [hooks.register_step_pre_hook(self._before), hooks.register_step_post_hook(self._after)]
        self._started = time.perf_counter()
        return self

    def stop(self) -> None:
        """Take the hooks away; what was seen stays."""
        if self._handles:
            self._watched = time.perf_counter() - self._started
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> "watch":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        started = time.perf_counter()
        assert self._moves is not None
        if self._probe is not None and self._due(self._taken):
            self._readings.append(self._probe.read(self._taken))
        self._moves.before()
        self._rate = rate_of(optimizer)
        self.seconds += time.perf_counter() - started

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        started = time.perf_counter()
        assert self._moves is not None
        row = self._moves.after()
        self._rows.append({"step": self._taken, "lr": self._rate, "blocks": row})
        known = {(each["block"], each["what"]) for each in self._not_finite}
        fresh = [each for each in self._moves.not_finite(row) if (each["block"], each["what"]) not in known]
        self._not_finite += [{"step": self._taken, **each} for each in fresh]
        self._taken += 1
        self.seconds += time.perf_counter() - started
        if self._taken >= self._steps:
            self.stop()

    def _due(self, step: int) -> bool:
        # The first steps decide most: there it is read at 1, 2, 4, ... as well.
        return step % self._every == 0 or (step < self._every and step.bit_count() == 1)

    @property
    def share(self) -> float:
        """Share of the loop's time, from the start to the last step that was watched, that went into watching."""
        watched = time.perf_counter() - self._started if self._handles else self._watched
        return self.seconds / watched if watched else 0.0

    def report(self) -> WatchReport:
        """What was seen so far."""
        return WatchReport(
            optimizer=type(self._optimizer).__name__, taken=self._taken, moves=tuple(self._rows),
            readings=tuple(self._readings), not_finite=tuple(self._not_finite), seconds=self.seconds, share=self.share,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """What was seen, as plain values."""
        return self.report().to_dict()

    def to_frame(self) -> pd.DataFrame:
        """What was seen, one row per step and block."""
        return self.report().to_frame()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Sharpness against its threshold, or without a probe the relative updates."""
        return self.report().plot(ax)

    def __str__(self) -> str:
        return str(self.report()) if self._taken else self._priced()

    def _priced(self) -> str:
        cost, time = self.cost, "" if self.cost["seconds"] is None else f", about {self.cost['seconds']:.0f} s"
        read = f"; {cost['readings']} readings of the probe, about {cost['passes']:,} passes over it{time}"
        return (
            f"watching up to {cost['steps']} steps: {cost['bytes'] / 2**20:.1f} MiB for copies of the weights"
            f"{read if cost['readings'] else '; no probe, no curvature'}"
        )


def _unwrapped(optimizer: Any) -> Optimizer:
    """The optimizer whose step is really called, which wrappers of other libraries hold as ``.optimizer``."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, Optimizer):
        raise UsageError(f"watch takes a torch.optim.Optimizer, not {type(optimizer).__name__}")
    if isinstance(optimizer, LBFGS):
        raise UsageError("L-BFGS evaluates the loss many times a step; watch SGD, Adam, AdamW or the like")
    return optimizer


def _trained(model: nn.Module, optimizer: Optimizer) -> Sequence[str]:
    every: Mapping[str, nn.Parameter] = named(model).parameters
    own = {id(value) for group in optimizer.param_groups for value in group["params"]}
    names = [name for name in WeightSpace(model).names if every[name].requires_grad and id(every[name]) in own]
    if not names:
        raise UsageError(
            "the optimizer trains no parameter of this model; make it from model.parameters(), after the model was "
            "moved or wrapped"
        )
    return names

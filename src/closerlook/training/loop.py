"""The one training loop. It knows a closure that fills the gradients, an optimizer, and observers."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from closerlook.batches import Feed, Loader, generators_kept, seed_all, seed_torch
from closerlook.errors import LoaderError

Closure = Callable[[Any, int], float]


@dataclass
class Tick:
    """Where training stands after `step` steps: the observers' view."""

    step: int
    total: int
    steps_per_epoch: int
    first_epoch: int = 0  # a fork goes on with the data order of the epoch at which it was taken
    loss: float = math.nan
    lr: float = math.nan
    diverged: bool = False

    @property
    def epoch(self) -> float:
        """Epochs done, those before the fork and the fraction of the present one included."""
        return self.first_epoch + self.step / self.steps_per_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether this step is the last of an epoch."""
        return self.step % self.steps_per_epoch == 0


class Observer(Protocol):
    """Called before the first step and after every step."""

    def __call__(self, tick: Tick) -> Any:
        """Look at the tick; the weights are those after its step. A mapping that is returned is kept as a row."""


@runtime_checkable
class Resuming(Protocol):
    """An observer that looks at the weights before a step as well."""

    def resume(self, tick: Tick) -> None:
        """Called once in a run that goes on; the weights are those after the tick's step, which it was shown before."""


class Stepper(Protocol):
    """An optimizer as far as the loop needs it."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters with their settings, ``"lr"`` among them."""

    def step(self) -> Any:
        """One step along the gradients."""


def optimise(
    closure: Closure,
    optimizer: Stepper,
    factor: Callable[[int], float],
    loader: Loader,
    tick: Tick,
    observers: Sequence[Observer] = (),
    seed: int = 0,
) -> Tick:
    """Take steps from ``tick.step`` to ``tick.total``; returns the last tick.

    ``closure(batch, step)`` fills the gradients and returns the loss. The learning rate of every parameter
    group is its own base rate times ``factor(step)``. The global generator (dropout) is seeded per step from
    (seed, step), so that a resumed run draws the same numbers, and is put back at the end. A loss that is not
    finite ends the run: ``tick.diverged`` is set and ``tick.step`` is the step that could not be taken. An observer
    may end the run in the same way.
    """
    bases = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
    with generators_kept(loader):
        for observe in observers if tick.step == 0 and not tick.diverged else ():
            observe(tick)
        while tick.step < tick.total and not tick.diverged:
            for batch in _rest_of_epoch(loader, tick, seed):
                groups = optimizer.param_groups
                for group, base in zip(groups, bases, strict=True):
                    group["lr"] = base * factor(tick.step)
                tick.lr = groups[0]["lr"]
                seed_torch(mixed_seed(seed, tick.first_epoch * tick.steps_per_epoch + tick.step))
                tick.loss = closure(batch, tick.step)
                tick.diverged = not math.isfinite(tick.loss)
                if not tick.diverged:
                    optimizer.step()
                    tick.step += 1
                for observe in observers:
                    observe(tick)
                if tick.diverged:
                    break
    return tick


def descend(model: nn.Module, batch: Any, feed: Feed) -> Tensor:
    """The mean loss of a batch, after its backward pass.

    A caller's own autocast region does not reach it: the backward pass would take its products in low precision.
    """
    with torch.autocast(feed.device.type, enabled=False):
        loss = feed(model, batch).loss.mean()
        loss.backward()
    return loss.detach()


def seekable(loader: Loader) -> bool:
    """Whether a loader's order can be re-created at any batch."""
    return hasattr(loader, "set_epoch") and hasattr(loader, "from_batch")


def _rest_of_epoch(loader: Loader, tick: Tick, seed: int) -> Iterator[Any]:
    epoch, done = divmod(tick.step, tick.steps_per_epoch)
    left, given = tick.steps_per_epoch - done, 0
    for given, batch in enumerate(islice(_from(loader, tick.first_epoch + epoch, done, seed), left), 1):  # noqa: B007
        yield batch
    if given < left:
        raise LoaderError(
            f"the loader gave {done + given} batches in epoch {epoch} and has a length of {tick.steps_per_epoch}; "
            "make its length the number of its batches"
        )


def _from(loader: Any, epoch: int, done: int, seed: int) -> Iterator[Any]:
    if seekable(loader):
        loader.set_epoch(epoch)
        return iter(loader.from_batch(done))
    # A foreign loader draws its order, and its augmentations, from any generator: seeded per epoch, a resumed run gets
    # the same ones.
    seed_all(mixed_seed(seed, epoch, 1), loader)
    return iter(loader)


def mixed_seed(*parts: int) -> int:
    """One seed from several numbers; neighbouring numbers do not share streams, as their sums would."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)

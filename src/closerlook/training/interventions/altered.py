"""All interventions of a run together: what happens at each moment of a step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from closerlook.batches import Feed
from closerlook.errors import UsageError
from closerlook.training.interventions.change import Change, Intervention, Subject
from closerlook.training.loop import Stepper, Tick


class Altered:
    """The interventions of one run, in the order in which they were given; as an observer it notes what they say."""

    def __init__(self, interventions: Sequence[Intervention], subject: Subject) -> None:
        for each in interventions:
            if not isinstance(each, Intervention):
                raise UsageError(f"{each!r} is no intervention; what only looks at a training belongs to observers")
        self._changes: list[Change] = [each.bind(subject) for each in interventions]
        self._parameters = subject.parameters
        self._modes: dict[nn.Module, bool] = {}
        self._step = 0

    def feed(self, feed: Feed) -> Feed:
        """The loss that is trained, changed by all of them."""
        for change in self._changes:
            feed = change.feed(feed)
        return feed

    def begin(self, step: int) -> None:
        """Before the forward pass."""
        self._step = step
        still = {module for change in self._changes for module in change.still(step)}
        for module in self._modes.keys() - still:
            module.train(self._modes.pop(module))
        for module in still - self._modes.keys():
            self._modes[module] = module.training
            module.eval()

    def after_backward(self) -> set[str]:
        """Change the gradients; the names of the parameters that the step must not move."""
        held = self._held(self._step)
        free = [value for name, value in self._parameters.items() if name not in held and value.grad is not None]
        for change in self._changes:
            change.gradients(self._step, free)
        return held

    @contextmanager
    def update(self) -> Iterator[None]:
        """Around the optimizer's step."""
        with ExitStack() as stack:
            for change in self._changes:
                stack.enter_context(change.update(self._step))
            yield

    def __call__(self, tick: Tick) -> Mapping[str, Any] | None:
        """What is to be noted: what froze or thawed at this step."""
        if tick.diverged:
            return None
        now, before = self._held(tick.step), self._held(tick.step - 1)
        said = {"frozen": now - before, "thawed": before - now}
        return {word: [name for name in self._parameters if name in names] for word, names in said.items() if names}

    def _held(self, step: int) -> set[str]:
        return {name for change in self._changes for name in change.frozen(step)}


class AlteredOptimizer:
    """An optimizer whose step the interventions surround."""

    def __init__(self, inner: Stepper, altered: Altered) -> None:
        self._inner, self._altered = inner, altered

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimizer."""
        return self._inner.param_groups

    def step(self) -> None:
        """One step along the gradients."""
        with self._altered.update():
            self._inner.step()

"""What an intervention acts on, and the moments of a step at which it can act."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from closerlook.batches import Feed
from closerlook.durations import Clock
from closerlook.errors import UsageError

Patterns = str | tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """A network in training, as interventions and observers see it.

    `parameters` are the trained ones by plain name, `start` gives the state dict of step 0.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    clock: Clock
    feed: Feed
    optimizer: Optimizer
    start: Callable[[], Mapping[str, Tensor]] = field(default=dict)

    def matching(self, params: Patterns, but: Patterns = ()) -> list[str]:
        """Names of the trained parameters that match `params` and not `but`.

        Raises
        ------
        UsageError
            There are none.
        """
        found = [name for name in self.parameters if _any(name, params) and not _any(name, but)]
        if not found:
            left = f" but {_listed(but)}" if but else ""
            raise UsageError(
                f"no trained parameter matches {_listed(params)}{left}; the names are {', '.join(self.parameters)}"
            )
        return found


def _any(name: str, patterns: Patterns) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _tuple(patterns))


def _tuple(patterns: Patterns) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else patterns


def _listed(patterns: Patterns) -> str:
    return ", ".join(map(repr, _tuple(patterns)))


class Change:
    """One intervention in a run. Everything is a function of the step, so that a resumed run needs no state of it.

    The methods that a kind does not override do nothing.
    """

    def feed(self, feed: Feed) -> Feed:
        """The loss that is trained."""
        return feed

    def begin(self, step: int) -> None:
        """Before the forward pass of a step."""

    def frozen(self, step: int) -> Collection[str]:
        """Names of the parameters that the step must not move."""
        return ()

    def gradients(self, step: int, free: Sequence[nn.Parameter]) -> None:
        """After the backward pass: change the gradients of the parameters that are not frozen."""

    def update(self, step: int) -> AbstractContextManager[None]:
        """Around the optimizer's step."""
        return nullcontext()

    def says(self, step: int) -> Mapping[str, Collection[str]]:
        """What is to be noted before a step: a word, and the parameters that it is said of."""
        return {}


class Intervention:
    """Frozen data that says what to change in a training; `bind` checks it against the network."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def bind(self, subject: Subject) -> Change:
        """What it does to this network.

        Raises
        ------
        UsageError
            It does not fit the network or the length of the run.
        """
        raise NotImplementedError


def norms_of(model: nn.Module, names: Collection[str]) -> Iterator[nn.Module]:
    """The layers with running statistics that own one of the parameters."""
    for prefix, module in model.named_modules():
        own = {f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)}
        if getattr(module, "running_mean", None) is not None and own & set(names):
            yield module

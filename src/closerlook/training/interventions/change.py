"""What an intervention acts on, and the moments of a step at which it can act."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from closerlook.batches import Feed, Loader
from closerlook.durations import Clock
from closerlook.errors import UsageError
from closerlook.weights import named, named_modules

Patterns = str | tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """A network in training, as interventions and observers see it.

    `parameters` are the trained ones by plain name, tied ones once; `start` gives those of step 0 in the same way.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    clock: Clock
    loader: Loader
    feed: Feed
    optimizer: Optimizer
    start: Callable[[], Mapping[str, Tensor]] = field(default=dict)

    def matching(self, params: Patterns, but: Patterns = ()) -> list[str]:
        """Names of the trained parameters that match `params` and not `but`; a tied one goes by any of its names.

        Raises
        ------
        UsageError
            There are none, or a pattern matches nothing in the network.
        """
        known, tied = named(self.model), dict[int, list[str]]()
        for name, value in known.parameters.items():
            tied.setdefault(id(value), []).append(name)
        names = {name: tied[id(value)] for name, value in self.parameters.items()}
        found = [name for name, alike in names.items() if _any(alike, params) and not _any(alike, but)]
        every = (*known.parameters, *known.buffers)
        idle = [pattern for pattern in (*_tuple(params), *_tuple(but)) if not _any(every, pattern)]
        if idle or not found:
            what = _listed(tuple(idle)) if idle else _listed(params) + (f" but not {_listed(but)}" if but else "")
            raise UsageError(f"no trained parameter matches {what}; the names are {', '.join(self.parameters)}")
        return found

    def norms(self, params: Patterns, but: Patterns = ()) -> list[nn.Module]:
        """The layers with running statistics that own a parameter which matches `params` and not `but`.

        One that owns none goes by the names of its statistics.
        """
        found = list[nn.Module]()
        for prefix, module in named_modules(self.model):
            own = [name for name, value in module._parameters.items() if value is not None] or list(module._buffers)
            names = [f"{prefix}.{name}".removeprefix(".") for name in own]
            if getattr(module, "running_mean", None) is not None:
                found += [module] * any(_any([name], params) and not _any([name], but) for name in names)
        return found


def _any(names: Iterable[str], patterns: Patterns) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in _tuple(patterns))


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

    def still(self, step: int) -> Collection[nn.Module]:
        """The norm layers that use their statistics in this step, and leave them as they are."""
        return ()

    def frozen(self, step: int) -> Collection[str]:
        """Names of the parameters that the step must not move."""
        return ()

    def gradients(self, step: int, free: Sequence[nn.Parameter]) -> None:
        """After the backward pass: change the gradients of the parameters that are not frozen."""

    def update(self, step: int) -> AbstractContextManager[None]:
        """Around the optimizer's step."""
        return nullcontext()


class Intervention:
    """Frozen data that says what to change in a training; `bind` checks it against the network."""

    # In a recipe: no unknown key, and nothing that JSON cannot give back, made in Python or not.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid", "allow_inf_nan": False, "revalidate_instances": "always",
    }  # fmt: skip

    def bind(self, subject: Subject) -> Change:
        """What it does to this network.

        Raises
        ------
        UsageError
            It does not fit the network or the length of the run.
        """
        raise NotImplementedError

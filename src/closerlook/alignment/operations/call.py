"""A call of an operation, and the rules by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from closerlook.alignment.axes import (
    Axis,
    fixed,
    size_of,
    tie,
)
from closerlook.alignment.shapes import Axes


@dataclass(frozen=True)
class Call:
    """One call of an operation: its arguments by name, the axes of those that are tensors, the shapes it returned."""

    name: str
    given: Mapping[str, Any]
    known: Callable[[Tensor], Axes]
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...] = ()  # of the first tensor, before the call

    def axes(self, name: str) -> Axes:
        """Axes of an argument."""
        return self.known(self.given[name])

    def dim(self, name: str = "dim") -> int:
        """A dimension that was given, counted from the front."""
        return self.given[name] % max(len(self.axes("self")), 1)

    @property
    def tensors(self) -> list[Axes]:
        """Axes of all arguments that are tensors."""
        return [self.known(value) for value in self.given.values() if isinstance(value, Tensor)]


Rule = Callable[[Call], Sequence[Axes]]  # axes of the outputs; those of the last one go for all that follow
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of some operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def broadcast(many: Iterable[Axes], shape: Sequence[int]) -> Axes:
    """Tie the axes of tensors that are broadcast to one shape."""
    found: list[Axis | None] = [None] * len(shape)
    for axes in many:
        for place, axis in enumerate(axes, len(shape) - len(axes)):
            other = found[place]
            if other is not None and size_of(axis) > 1:
                tie(other, axis)
            found[place] = axis if size_of(axis) > 1 else other
    return tuple(fixed(size) if axis is None else axis for axis, size in zip(found, shape, strict=True))

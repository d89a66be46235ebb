"""The symmetry of a network: groups of hidden units that can change places, and where each group is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from closerlook.activations.forward import Forward
from closerlook.alignment.axes import TraceError, Units, resolved
from closerlook.alignment.shapes import Axes
from closerlook.alignment.tracing import Trace
from closerlook.errors import UsageError
from closerlook.weights import Point, WeightSpace

Order = NDArray[np.intp]


@dataclass(frozen=True)
class Factor:
    """One factor of an axis: `size` entries in their order, or those of a group of units."""

    size: int
    group: int | None


Layout = tuple[tuple[Factor, ...], ...]  # an axis: products of factors (row-major), one after the other


@dataclass(frozen=True)
class Group:
    """`size` units that change places together; runs of `blocks` units move as wholes.

    The name is that of the first axis with these units, such as ``features.conv1.weight:0``; a second group on that
    axis is ``...:0#2``.
    """

    name: str
    size: int
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class ReadAt:
    """Where units are read: the number of the product in a forward pass, its argument, the dimension summed over."""

    product: int
    argument: str
    dim: int
    axis: Layout


@dataclass(frozen=True)
class Symmetry:
    """Groups of hidden units of a network, and the layout of every axis of its parameters and buffers by name.

    `layers` are the axes of the tensors that each module returned, by its name, the number of the call and that of the
    tensor, in order; `reads` the places where a layer reads units.
    """

    groups: tuple[Group, ...]
    axes: Mapping[str, tuple[Layout, ...]]
    layers: Mapping[tuple[str, int, int], tuple[Layout, ...]]
    reads: tuple[ReadAt, ...]

    def identity(self) -> list[Order]:
        """All units where they are."""
        return [np.arange(group.size) for group in self.groups]

    def permuted(self, name: str, value: Tensor, orders: Sequence[Order]) -> Tensor:
        """A parameter or buffer with its units in other orders: entry i is entry ``order[i]`` of before."""
        return reordered(value, self.axes[name], orders) if name in self.axes else value

    def moved(self, space: WeightSpace, point: Point, orders: Sequence[Order]) -> Point:
        """A point with its units in other orders; buffers follow their units."""
        vector = torch.empty_like(point.vector)
        for name, shape, span in space.slices():
            vector[span] = self.permuted(name, point.vector[span].view(shape), orders).reshape(-1)
        buffers = {name: self.permuted(name, value, orders) for name, value in point.buffers.items()}
        return Point(vector, buffers, f"{point.origin}, permuted")


@dataclass(frozen=True)
class Place:
    """Where a group of units is along an axis: in which product, as which factor of it."""

    group: int
    product: int
    factor: int


def places(axis: Layout) -> Iterator[Place]:
    """All places of groups along an axis."""
    for number, product in enumerate(axis):
        for position, factor in enumerate(product):
            if factor.group is not None:
                yield Place(factor.group, number, position)


def rows(value: Tensor, dim: int, axis: Layout, place: Place) -> Tensor:
    """One row [rest] per unit of the group at a place along a dimension: the unit's entries of a tensor."""
    sizes = [prod(factor.size for factor in product) for product in axis]
    own = value.narrow(dim, sum(sizes[: place.product]), sizes[place.product])
    shape = [factor.size for factor in axis[place.product]]
    return own.unflatten(dim, shape).movedim(dim + place.factor, 0).reshape(shape[place.factor], -1)


def reordered(value: Tensor, axes: Sequence[Layout], orders: Sequence[Order]) -> Tensor:
    """A tensor with the units along its axes in other orders."""
    for dim, axis in enumerate(axes):
        if any(factor.group is not None for product in axis for factor in product):
            value = value.index_select(dim, torch.from_numpy(index(axis, orders)).to(value.device))
    return value


def index(axis: Layout, orders: Sequence[Order]) -> Order:
    """Which entry comes to each place along an axis."""
    parts, start = list[Order](), 0
    for product in axis:
        places = np.zeros(1, dtype=np.intp)
        for factor in product:
            order = np.arange(factor.size) if factor.group is None else orders[factor.group]
            places = (places[:, None] * factor.size + order).reshape(-1)
        parts.append(start + places)
        start += len(places)
    return np.concatenate(parts)


def trace(model: nn.Module, batch: Any, forward: Forward | None = None) -> Symmetry:
    """The symmetry of a network in eval mode, from one forward pass of a batch.

    Raises
    ------
    TraceError
        An operation through which units cannot be followed, with the module that called it; outputs that are unknown.
    UsageError
        The network has no hidden unit that can change its place.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).eval()
    >>> trace(net, torch.zeros(1, 1, 5, 5)).groups
    (Group(name='0.weight:0', size=4, blocks=()),)
    """
    forward = forward or Forward(next(model.parameters()).device)
    watch = Trace(model)
    with watch.modules(model), watch:
        forward(model, batch)
    if ("", 1, 0) not in watch.layers:
        raise TraceError(
            "a forward pass of the whole model returned no tensor, so that its outputs are not known; let batch_fn "
            "call the model itself, and the model return tensors, alone or in tuples, lists, mappings or dataclasses"
        )
    watch.leave_unused()
    found = _frozen(watch)
    if not found.groups:
        raise UsageError("this network has no hidden units that can change places; is its last layer its only one?")
    return found


def _frozen(watch: Trace) -> Symmetry:
    numbers: dict[Units, int] = {}
    groups: list[Group] = []

    def layout(axes: Axes) -> tuple[Layout, ...]:
        return tuple(tuple(tuple(map(factor, product)) for product in resolved(axis)) for axis in axes)

    def factor(units: Units) -> Factor:
        return Factor(units.size, None if units.fixed else numbers.get(units))

    for name, axes in watch.state.items():
        for dim, axis in enumerate(axes):
            for units in (units for product in resolved(axis) for units in product):
                if not units.fixed and units not in numbers:
                    numbers[units] = len(groups)
                    here = sum(group.name.partition("#")[0] == f"{name}:{dim}" for group in groups)
                    called = f"{name}:{dim}" + (f"#{here + 1}" if here else "")
                    groups.append(Group(called, units.size, tuple(sorted(units.blocks))))
    state = {name: layout(axes) for name, axes in watch.state.items()}
    layers = {call: layout(axes) for call, axes in watch.layers.items()}
    reads = tuple(ReadAt(read.product, read.argument, read.dim, layout(read.axes)[read.dim]) for read in watch.reads)
    return Symmetry(tuple(groups), state, layers, reads)

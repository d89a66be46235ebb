"""Weight matching: the orders of B's units that bring its weights nearest to A's, one group of units at a time."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from closerlook.alignment.assignment import Scores, best_order
from closerlook.alignment.groups import Layout, Order, Place, Symmetry, places, reordered, rows

_GAIN = 1e-12  # of |w_a| |w_b|: less than that is rounding


@dataclass(frozen=True)
class Weights:
    """The parameters of two networks in float64, and where each group of units is in them."""

    symmetry: Symmetry
    a: Mapping[str, Tensor]
    b: Mapping[str, Tensor]

    def axes_of(self, group: int) -> Iterator[tuple[str, int, Place]]:
        """Parameter, dimension and place of every axis along which a group's units are."""
        for name in self.a:
            for dim, axis in enumerate(self.symmetry.axes.get(name, ())):
                for place in places(axis):
                    if place.group == group:
                        yield name, dim, place

    def inner(self, orders: Sequence[Order], names: Sequence[str] | None = None) -> float:
        """Inner product of A's parameters (of those in `names`) with B's, whose units are in these orders."""
        chosen = list(self.a) if names is None else names
        return sum(float(torch.sum(self.a[name] * self._moved(name, orders))) for name in chosen)

    def scores(self, group: int, orders: Sequence[Order], known: Collection[int] | None = None) -> Scores:
        """What unit i of A and unit j of B have in common [n, n], summed over all axes of the group.

        Each axis adds W_a (n x rest) W_b^T, where all else in W_b is in its present order. Parameters that hold units
        of groups other than the `known` ones are left out.
        """
        size = self.symmetry.groups[group].size
        total = torch.zeros(size, size, dtype=torch.float64)
        for name, dim, place in self.axes_of(group):
            axes = list(self.symmetry.axes[name])
            if known is not None and not {*known, group} >= {each.group for axis in axes for each in places(axis)}:
                continue
            axes[dim] = _without(axes[dim], place)
            moved = reordered(self.b[name], axes, orders)
            total += rows(self.a[name], dim, axes[dim], place) @ rows(moved, dim, axes[dim], place).T
        return total.numpy()

    def _moved(self, name: str, orders: Sequence[Order]) -> Tensor:
        return reordered(self.b[name], self.symmetry.axes.get(name, ()), orders)


def _without(axis: Layout, place: Place) -> Layout:
    """The axis with the units at one place in their own order."""
    product = list(axis[place.product])
    product[place.factor] = replace(product[place.factor], group=None)
    return (*axis[: place.product], tuple(product), *axis[place.product + 1 :])


def grown(weights: Weights, groups: Sequence[int]) -> list[Order]:
    """Orders to start from: one group after the other is assigned, by what it shares with those before it.

    The order of a group that was not assigned yet says nothing, and would be noise to its neighbours.
    """
    orders, known = weights.symmetry.identity(), set[int]()
    for group in groups:
        orders[group] = best_order(weights.scores(group, orders, known), weights.symmetry.groups[group].blocks)
        known.add(group)
    return orders


def climbed(weights: Weights, orders: list[Order], generator: np.random.Generator) -> list[Order]:
    """Better orders: groups in random order, each assigned exactly, until none gains.

    No step lowers the inner product of the weights, and a gain below 1e-12 of |w_a| |w_b| counts as none, so it ends.
    Where a group lies on two axes of one tensor, each of them is scored with the other in its present order.
    """
    names = [sorted({name for name, _, _ in weights.axes_of(group)}) for group in range(len(orders))]
    norms = [sum(float((value**2).sum()) for value in side.values()) ** 0.5 for side in (weights.a, weights.b)]
    gained = True
    while gained:
        gained = False
        for group in generator.permutation(len(orders)):
            blocks = weights.symmetry.groups[group].blocks
            changed = [*orders[:group], best_order(weights.scores(group, orders), blocks), *orders[group + 1 :]]
            gain = weights.inner(changed, names[group]) - weights.inner(orders, names[group])
            if gain > _GAIN * norms[0] * norms[1]:
                orders, gained = changed, True
    return orders


def match_weights(weights: Weights, seed: int, restarts: int) -> list[list[Order]]:
    """Weight matching, `restarts` times, each from another start and in another random order of the groups.

    The first start is grown from the input, the second is the order as it is, and the others are grown in random order.

    References
    ----------
    Ainsworth, Hayase and Srinivasa, Git Re-Basin, arXiv 2209.04836, algorithm 1; the grown starts are ours.
    """
    count, found = len(weights.symmetry.groups), []
    for number, generator in enumerate(np.random.default_rng(seed).spawn(restarts)):
        groups = generator.permutation(count).tolist() if number > 1 else range(count)
        start = weights.symmetry.identity() if number == 1 else grown(weights, groups)
        found.append(climbed(weights, start, generator))
    return found

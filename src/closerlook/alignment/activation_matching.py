"""Activation matching: the orders of B's units whose activations are most correlated with those of A's."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from closerlook.activations.forward import Forward
from closerlook.alignment.assignment import best_order
from closerlook.alignment.groups import Order, Place, ReadAt, Symmetry, places, rows
from closerlook.alignment.moments import Moments
from closerlook.alignment.operations import SUMS
from closerlook.alignment.tracing import arguments, name_of


def match_activations(
    symmetry: Symmetry, a: nn.Module, b: nn.Module, batches: Iterable[Any], forward: Forward
) -> list[Order]:
    """One exact assignment per group of units: the largest sum of correlations between units of A and of B.

    Units are taken where a layer reads them, that is after nonlinearity and pooling; positions of maps are samples, and
    a stream that several layers read counts once for each. Sums in float64. A unit that never changes is correlated
    with none.

    References
    ----------
    Li, Yosinski, Clune, Lipson and Hopcroft, Convergent learning, arXiv 1511.07543; Ainsworth, Hayase and Srinivasa,
    Git Re-Basin, arXiv 2209.04836, section 3.1.
    """
    moments: dict[tuple[ReadAt, Place], Moments] = {}
    for batch in batches:
        taken = [_taken(symmetry, model, batch, forward) for model in (a, b)]
        for read in symmetry.reads:
            one, two = (values[read.product, read.argument] for values in taken)
            for place in places(read.axis):
                pair = (rows(value, read.dim, read.axis, place) for value in (one, two))
                moments.setdefault((read, place), Moments()).add(*pair)
    orders = symmetry.identity()
    for number, group in enumerate(symmetry.groups):
        scores = [found.correlations.numpy() for (_, place), found in moments.items() if place.group == number]
        if scores:
            orders[number] = best_order(np.sum(scores, axis=0), group.blocks)
    return orders


def _taken(symmetry: Symmetry, model: nn.Module, batch: Any, forward: Forward) -> Mapping[tuple[int, str], Tensor]:
    watch = _Reads({(read.product, read.argument) for read in symmetry.reads})
    with watch:
        forward(model, batch)
    return watch.taken


class _Reads(TorchDispatchMode):
    """Keeps what chosen products of a forward pass read."""

    def __init__(self, wanted: set[tuple[int, str]]) -> None:
        super().__init__()
        self.wanted, self.taken, self._products = wanted, dict[tuple[int, str], Tensor](), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = name_of(func)
        if name in SUMS:
            given = arguments(func, args, kwargs or {})
            for argument, _ in SUMS[name]:
                if (self._products, argument) in self.wanted:
                    self.taken[self._products, argument] = given[argument]
            self._products += 1
        return func(*args, **(kwargs or {}))

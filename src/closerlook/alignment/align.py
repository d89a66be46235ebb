"""Two networks, one of them with its hidden units in the order that brings it near the other."""

from contextlib import closing
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from closerlook.activations.forward import Forward
from closerlook.alignment.activation_matching import match_activations
from closerlook.alignment.check import check_same_function
from closerlook.alignment.groups import Order, Symmetry, trace
from closerlook.alignment.result import Alignment, Method
from closerlook.alignment.weight_matching import Weights, match_weights
from closerlook.batches import BatchFn, Loader, batches_of, feed_for
from closerlook.errors import MismatchError, UsageError
from closerlook.evaluation import batch_norms
from closerlook.landscape import line
from closerlook.views import check_type
from closerlook.weights import Point, WeightSpace, distance, loaded


def align(model: nn.Module, a: Any, b: Any, method: Method = "weights", **settings: Any) -> Point:
    """B with its hidden units permuted so that it lies near a: the same function, another point of weight space.

    Which units can change places is found by following one forward pass; no description of the network is needed.
    Residual streams share one permutation, batch-norm weights, shifts and statistics follow their channels, inputs and
    outputs stay. The point that is returned gives the same outputs as b, or there is an error. `settings` are those of
    `alignment`, which also tells what was permuted.

    Examples
    --------
    >>> from collections import OrderedDict
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> moved = {"0.weight": net[0].weight.flip(0), "0.bias": net[0].bias.flip(0), "2.weight": net[2].weight.flip(1)}
    >>> other = {**net.state_dict(), **moved}
    >>> found = align(net, net, other, loader=[torch.zeros(5, 3)])
    >>> bool((found.vector == WeightSpace(net).point(net).vector).all())
    True
    """
    return alignment(model, a, b, method, **settings).point


def alignment(
    model: nn.Module,
    a: Any,
    b: Any,
    method: Method = "weights",
    *,
    loader: Loader,
    seed: int = 0,
    restarts: int = 5,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> Alignment:
    """Permute the hidden units of b so that it lies near a, and tell how: see `Alignment`.

    ``"weights"`` maximises the inner product of all weights, ``<w_a, P w_b>``, over one group of units after the other
    (Ainsworth et al. 2022, algorithm 1); ``"activations"`` the sum over units of the correlations of their activations.

    Parameters
    ----------
    model
        The network; it is only read. Its eval mode is aligned.
    a, b
        Points, modules, state dicts or paths. The buffers of b come with the permuted point.
    loader
        Its first batch is followed through the network, and the permuted network must give the same outputs on it.
        Activations are read on all batches. ``[batch]`` will do for weights.
    seed, restarts
        Weight matching ends in a local optimum: it is run `restarts` times, from different starts and in different
        random orders of the groups, and the nearest is kept. Activation matching does not depend on them.

    Raises
    ------
    TraceError
        An operation through which units cannot be followed, with the module that called it.
    MismatchError
        The points do not fit; batch norm without statistics for ``"activations"``; or the permuted network gives other
        outputs, and at which layer first.
    UsageError
        An unknown method, no restart, weights that are not finite.

    References
    ----------
    Ainsworth, Hayase and Srinivasa, Git Re-Basin, arXiv 2209.04836; Entezari et al., arXiv 2110.06296.
    """
    if method not in get_args(Method):
        raise UsageError(f"unknown method {method!r}; choose one of {', '.join(get_args(Method))}")
    if restarts < 1:
        raise UsageError(f"{restarts} restarts find nothing; take at least one")
    space = WeightSpace(model)
    one, two = line(space.point(a), space.point(b)).points
    check_type(one.vector, next(model.parameters()))
    _check_statistics(model, method, (one, two))
    model, feed = feed_for(model, batch_fn, device)
    forward = Forward(feed.device, batch_fn)
    net_a, net_b = (loaded(model, point).eval() for point in (one, two))
    with closing(batches_of(loader)) as batches:
        batch = next(batches)
    symmetry = trace(net_b, batch, forward)
    if method == "weights":
        orders, tried = _by_weights(symmetry, space, one, two, seed, restarts)
    else:
        orders = match_activations(symmetry, net_a, net_b, batches_of(loader), forward)
        tried = (distance(one.vector, symmetry.moved(space, two, orders).vector),)
    whole = symmetry.moved(space, space.point(net_b), orders)  # a bare vector is checked with the model's buffers
    difference = check_same_function(symmetry, net_b, loaded(model, whole).eval(), orders, batch, forward)
    return Alignment(
        symmetry.moved(space, two, orders),
        {group.name: order for group, order in zip(symmetry.groups, orders, strict=True)},
        method, distance(one.vector, two.vector), min(tried), difference, tried,
    )  # fmt: skip


def _check_statistics(model: nn.Module, method: Method, points: tuple[Point, Point]) -> None:
    bare = [point.origin for point in points if not point.buffers]
    if method == "activations" and bare and batch_norms(model):
        raise MismatchError(
            f"{bare[0]} has no batch-norm statistics, on which activations depend; align by weights, or give a state "
            "dict that holds them"
        )


def _by_weights(
    symmetry: Symmetry, space: WeightSpace, a: Point, b: Point, seed: int, restarts: int
) -> tuple[list[Order], tuple[float, ...]]:
    sides = [
        {name: point.vector[span].view(shape).double().cpu() for name, shape, span in space.slices()}
        for point in (a, b)
    ]
    weights = Weights(symmetry, *sides)
    found = match_weights(weights, seed, restarts)
    tried = tuple(distance(a.vector, symmetry.moved(space, b, orders).vector) for orders in found)
    return found[int(np.argmin(tried))], tried

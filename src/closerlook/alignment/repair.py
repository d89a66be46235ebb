"""REPAIR: the activations' means and spreads, which collapse between two networks, set back to those of the ends."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from closerlook.activations.forward import Forward
from closerlook.activations.hooks import listening
from closerlook.alignment.groups import Symmetry, trace
from closerlook.alignment.moments import Moments
from closerlook.batches import BatchFn, Loader, batches_of, feed_for
from closerlook.errors import LayerError, UsageError
from closerlook.evaluation import batch_norms
from closerlook.landscape import line
from closerlook.views import check_type
from closerlook.weights import Point, WeightSpace, loaded, named_modules

Layer = nn.Linear | _ConvNd
Statistics = tuple[Tensor, Tensor]  # mean and standard deviation [n]


def repair(
    model: nn.Module,
    a: Any,
    b: Any,
    t: float,
    loader: Loader,
    *,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> Point:
    """The point (1 - t) a + t b with every hidden channel's mean and spread set to (1 - t) and t of the ends'.

    Channels are the outputs of convolutions and linear layers before the nonlinearity; the layers whose units feed no
    hidden unit (the outputs) stay. Mean and standard deviation are measured over all examples and positions, layer
    after layer, each with those before it repaired, and the correction is folded into weight and bias, so the result is
    a point like any other. A channel that never changes keeps its scale. At t = 0 and 1 it is a and b.

    With batch norm this is the same as estimating its statistics anew: ``batch_stats="recompute"``.

    Raises
    ------
    UsageError
        The network has batch norm.
    LayerError
        A hidden layer has no bias, is called more than once, shares its weights, or is no convolution or linear layer.

    Examples
    --------
    >>> a, b = (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2))
    >>> repair(a, a, b, 0.5, [torch.randn(50, 3)]).vector.shape
    torch.Size([26])

    References
    ----------
    Jordan, Sedghi, Saukh, Entezari and Neyshabur, REPAIR, arXiv 2211.08403, section 3.
    """
    return next(repaired(model, a, b, [t], loader, batch_fn=batch_fn, device=device))


def repaired(
    model: nn.Module,
    a: Any,
    b: Any,
    coords: Sequence[float],
    loader: Loader,
    *,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> Iterator[Point]:
    """Repaired points at several positions t between a and b, one after the other: see `repair`."""
    if batch_norms(model):
        raise UsageError(
            "this network has batch norm: estimating its statistics anew is its REPAIR; read it with "
            "batch_stats='recompute'"
        )
    space = WeightSpace(model)
    segment = line(space.point(a), space.point(b))
    check_type(segment.points[0].vector, next(model.parameters()))
    model, feed = feed_for(model, batch_fn, device)
    forward = Forward(feed.device, batch_fn)
    nets = [loaded(model, point).eval() for point in segment.points]
    names = _hidden_layers(nets[0], loader, forward)
    ends = [_statistics(net, names, loader, forward) for net in nets]
    for t in coords:
        if t in (0, 1):
            yield Point(segment.points[int(t)].vector, origin=f"t = {t}")
            continue
        net = loaded(model, segment.at(t)).eval()
        for name in names:
            goal = [(1 - t) * first + t * second for first, second in zip(ends[0][name], ends[1][name], strict=True)]
            _set(dict(named_modules(net))[name], _statistics(net, [name], loader, forward)[name], (goal[0], goal[1]))
        yield Point(space.point(net).vector, origin=f"repaired at t = {t}")


def repairable(
    model: nn.Module,
    loader: Loader,
    *,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> str | None:
    """Why no point of a network without batch norm can be repaired; None where `repair` can.

    It is a matter of layers, not of weights; the first batch is followed through the network.

    Raises
    ------
    TraceError
        An operation through which units cannot be followed.
    UsageError
        The network has no hidden units that can change places.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    >>> repairable(net, [torch.zeros(5, 3)])
    '0 has no bias to take the correction; build it with bias=True'
    """
    net, feed = feed_for(model, batch_fn, device)
    net = loaded(net, WeightSpace(net).point(net)).eval()
    try:
        _hidden_layers(net, loader, Forward(feed.device, batch_fn))
    except LayerError as error:
        return str(error)
    return None


def _set(layer: Any, found: Statistics, goal: Statistics) -> None:
    """Fold the way from one mean and spread to another into a layer's weight and bias."""
    scale = torch.where(found[1] > 0, goal[1] / torch.where(found[1] > 0, found[1], 1.0), 1.0)
    with torch.no_grad():
        shape = [1] * layer.weight.ndim
        shape[_out(layer)] = -1
        layer.weight.copy_(layer.weight.double().cpu() * scale.view(shape))
        layer.bias.copy_((layer.bias.double().cpu() - found[0]) * scale + goal[0])


def _out(layer: nn.Module) -> int:
    """The dimension of a weight along which the outputs are."""
    return 1 if getattr(layer, "transposed", False) else 0


def _statistics(net: nn.Module, names: Sequence[str], loader: Loader, forward: Forward) -> Mapping[str, Statistics]:
    """Mean and standard deviation of the channels of some layers, over all examples and positions, in float64."""
    moments = {name: Moments() for name in names}

    def told(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        channels = output.movedim(-1, 0) if isinstance(module, nn.Linear) else output.movedim(1, 0)
        moments[name].add(channels.flatten(1))

    with listening(net, told, names):
        for batch in batches_of(loader):
            forward(net, batch)
    return {name: (found.mean, found.std) for name, found in moments.items()}


def _hidden_layers(net: nn.Module, loader: Loader, forward: Forward) -> list[str]:
    """The layers that make hidden units, in the order of their calls; refused where they cannot be repaired."""
    with closing(batches_of(loader)) as batches:
        batch = next(batches)
    symmetry, calls = trace(net, batch, forward), list[str]()
    with listening(net, lambda name, module, inputs, output: calls.append(name)):
        forward(net, batch)
    layers = {name: module for name, module in named_modules(net) if isinstance(module, Layer)}
    hidden = [name for name in calls if name in layers and _makes_units(name, layers[name], symmetry)]
    _check_others(symmetry, hidden)
    weights = [id(layers[name].weight) for name in dict.fromkeys(hidden)]
    for name in hidden:
        if hidden.count(name) > 1 or weights.count(id(layers[name].weight)) > 1:
            raise LayerError(f"{name} is used more than once, so that one correction cannot serve all its outputs")
        if layers[name].bias is None:
            raise LayerError(f"{name} has no bias to take the correction; build it with bias=True")
    return hidden


def _makes_units(name: str, layer: Layer, symmetry: Symmetry) -> bool:
    axis = symmetry.axes[f"{name}.weight"][_out(layer)]
    return any(factor.group is not None for product in axis for factor in product)


def _check_others(symmetry: Symmetry, hidden: Sequence[str]) -> None:
    known = {f"{name}.{kind}" for name in hidden for kind in ("weight", "bias")}
    for name, axes in symmetry.axes.items():
        makes = len(axes) > 1 and any(factor.group is not None for product in axes[0] for factor in product)
        if makes and name not in known:
            raise LayerError(f"{name} makes hidden units outside a convolution or linear layer; REPAIR cannot reach it")

"""Whether a network with permuted units is still the same function, and which layer is the first that is not."""

from typing import Any

import torch
from torch import Tensor, nn

from closerlook.activations.forward import Forward
from closerlook.activations.hooks import listening
from closerlook.activations.names import ROOT
from closerlook.alignment.groups import Order, Symmetry, reordered
from closerlook.batches import tensors_in
from closerlook.errors import MismatchError, NotFiniteError

# By how much the order of sums may change outputs, as a share of the largest of them.
_SLACK = {torch.float64: 1e-11, torch.float32: 1e-3}
_SLACK_OF_16_BITS = 0.05
Outputs = dict[tuple[str, int, int], Tensor]  # by layer, number of its call, number of the tensor


def check_same_function(
    symmetry: Symmetry, before: nn.Module, after: nn.Module, orders: list[Order], batch: Any, forward: Forward
) -> float:
    """Largest difference of the outputs of a network and of the same one with its units in other orders.

    Raises
    ------
    MismatchError
        They differ by more than rounding; the message names the first layer whose outputs do, up to its permutation.
    NotFiniteError
        The network gives NaN or infinity.
    """
    first, second = (_outputs(model, batch, forward, {ROOT}) for model in (before, after))
    if not all(bool(torch.isfinite(value).all()) for value in first.values()):
        raise NotFiniteError("the network gives NaN or infinite outputs on the first batch; did that run diverge?")
    if all(_alike(first[call], second[call]) for call in first):
        return max(float((first[call] - second[call]).abs().max()) for call in first)
    first, second = (_outputs(model, batch, forward, None) for model in (before, after))
    for (name, call, number), value in first.items():
        layout = symmetry.layers.get(("" if name == ROOT else name, call, number), ())
        if not _alike(reordered(value, layout, orders), second[name, call, number]):
            break
    raise MismatchError(
        f"with permuted units the network gives other outputs; the first layer that differs is {name}: it depends on "
        "the order of its units in a way that a forward pass does not show"
    )


def _alike(one: Tensor, two: Tensor) -> bool:
    slack = _SLACK.get(one.dtype, _SLACK_OF_16_BITS) * (one.abs().max() if one.numel() else 0.0)
    return bool(((one - two).abs() <= slack).all())


def _outputs(model: nn.Module, batch: Any, forward: Forward, names: set[str] | None) -> Outputs:
    found: Outputs = {}
    calls: dict[str, int] = {}

    def told(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        for number, tensor in enumerate(tensors_in(output)):
            found[name, calls[name], number] = tensor.clone() if tensor.is_floating_point() else tensor.double()

    with listening(model, told, names):
        forward(model, batch)
    return found

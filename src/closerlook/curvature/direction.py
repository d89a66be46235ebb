"""The direction of a step: the gradient's, or that in which an optimizer would go next."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from closerlook.errors import UsageError
from closerlook.weights import named


def next_step(optimizer: Optimizer, model: nn.Module, names: Sequence[str], gradient: Mapping[str, Tensor]) -> Tensor:
    """What the optimizer's next step would subtract from the weights, over its learning rate: a vector, in this order.

    A copy of the optimizer takes the step, so momentum, preconditioner and decay are in it. Groups with other learning
    rates than the first keep their ratio to it. Parameters that it does not train do not move.

    Raises
    ------
    UsageError
        It trains none of them.
    """
    every = named(model).parameters
    twin = copy.deepcopy(optimizer)
    pairs = zip(_trained(optimizer), _trained(twin), strict=True)
    twins = {id(value): other for value, other in pairs}
    if not any(id(every[name]) in twins for name in names):
        raise UsageError("the optimizer trains none of these parameters; pass the optimizer of this model")
    for other in twins.values():
        other.grad = None
    for name in names:
        if id(every[name]) in twins:
            other = twins[id(every[name])]
            other.grad = gradient[name].to(other).view_as(other)
    _unit_rate(twin)
    with torch.enable_grad():
        # The class's own: a scheduler replaces that of the instance by one that steps the caller's optimizer.
        type(twin).step(twin)
    steps = [every[name].detach() - twins.get(id(every[name]), every[name]).detach() for name in names]
    return torch.cat([step.reshape(-1) for step in steps])


def _trained(optimizer: Optimizer) -> list[Any]:
    return [value for group in optimizer.param_groups for value in group["params"]]


def _unit_rate(optimizer: Optimizer) -> None:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    first = next((rate for rate in rates if rate), None)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = 1.0 if first is None else rate / first

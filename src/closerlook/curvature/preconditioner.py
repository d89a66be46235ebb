"""What Adam divides its steps by, as a vector over the weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from closerlook.errors import MismatchError, NotFiniteError, UsageError
from closerlook.weights import WeightSpace, named

Preconditioner = Optimizer | Tensor


def preconditioner_of(source: Preconditioner, model: nn.Module, space: WeightSpace) -> Tensor:
    """The diagonal P [D] of a preconditioner; frozen parameters count 1.

    Of Adam after t steps, with v the running mean of squared gradients:
    ``P = (1 - beta1^t) (sqrt(v / (1 - beta2^t)) + eps)``. A step is then ``w -= lr m / P`` with m the running mean of
    gradients, so that Adam is gradient descent with momentum in the coordinates ``sqrt(P) w``, from the first step on
    (Cohen et al. 2022, arXiv 2207.14484). AMSGrad takes the largest v so far.

    Raises
    ------
    UsageError
        An optimizer that is no Adam, that trains other parameters, or that has not taken a step.
    MismatchError
        A tensor of another length or type.
    NotFiniteError
        Entries that are not finite and positive.
    """
    if isinstance(source, Tensor):
        found = _checked(source.detach(), model, space)
    elif isinstance(source, Adam | AdamW):
        found = torch.cat(list(_of_adam(source, model, space)))
    else:
        raise UsageError(f"preconditioner must be Adam, AdamW or a tensor [D], not {type(source).__name__}")
    if not bool((torch.isfinite(found) & (found > 0)).all()):
        raise NotFiniteError("the preconditioner must be finite and positive everywhere; with eps=0 it may not be")
    return found


def _checked(source: Tensor, model: nn.Module, space: WeightSpace) -> Tensor:
    weight = named(model).parameters[space.names[0]]
    if source.shape != (space.size,) or source.dtype != weight.dtype:
        raise MismatchError(
            f"the preconditioner is {tuple(source.shape)} of {source.dtype}, the weights ({space.size},) of "
            f"{weight.dtype}, frozen ones included; give one entry per weight, in the order of WeightSpace"
        )
    return source.to(weight.device)


def _of_adam(optimizer: Optimizer, model: nn.Module, space: WeightSpace) -> list[Tensor]:
    groups = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    every = named(model).parameters
    return [_entries(name, every[name], groups, optimizer).reshape(-1) for name in space.names]


def _entries(name: str, value: nn.Parameter, groups: Mapping[int, Mapping[str, Any]], optimizer: Optimizer) -> Tensor:
    if not value.requires_grad:
        return torch.ones_like(value)
    if id(value) not in groups:
        raise UsageError(f"the optimizer does not train {name}; pass the optimizer of this model, or freeze {name}")
    group, state = groups[id(value)], optimizer.state.get(value, {})
    if not state:
        raise UsageError(f"the optimizer has taken no step with {name} yet, so it divides by nothing; take one first")
    (beta1, beta2), step = group["betas"], float(state["step"])
    squares = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    return (squares / (1 - beta2**step)).sqrt().add(group["eps"]).mul(1 - beta1**step)

"""Optimizers by name, or by any factory that takes parameters."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from closerlook.errors import UsageError

OptimizerFactory = Callable[[Iterable[Tensor]], Optimizer]
# Entries of the widest vector register, for float32.
REGISTER = 16


def is_elementwise(optimizer: str | OptimizerFactory) -> bool:
    """Whether the optimizer may be given flat vectors, or pieces of them, in place of the parameters."""
    return isinstance(optimizer, str)


def optimizer_factory(optimizer: str | OptimizerFactory, lr: float | None, **settings: Any) -> OptimizerFactory:
    """What makes the named optimizer with its settings, or the factory itself.

    Raises
    ------
    UsageError
        An unknown name, a missing learning rate, a setting below 0 or not finite, or settings beside a factory, which
        has its own.
    """
    if not isinstance(optimizer, str):
        if lr is not None or any(settings.values()):
            raise UsageError("an optimizer factory sets its own lr, momentum and weight decay; leave them out")
        return optimizer
    if lr is None:
        raise UsageError(f"{optimizer} needs a learning rate: pass lr")
    if optimizer not in _ELEMENTWISE:
        raise UsageError(f"unknown optimizer {optimizer!r}; choose one of {', '.join(_ELEMENTWISE)}, or pass a factory")
    if optimizer != "sgd" and settings.pop("momentum", 0.0):
        raise UsageError(f"{optimizer} has no momentum setting; leave it at 0 or pass a factory")
    wrong = [f"{name}={value}" for name, value in {"lr": lr, **settings}.items() if not 0 <= value < math.inf]
    if wrong:
        raise UsageError(f"{optimizer} takes numbers of at least 0, not {', '.join(wrong)}")
    return partial(_ELEMENTWISE[optimizer], lr=lr, **settings)


def _sgd(parameters: Iterable[Tensor], **settings: Any) -> Optimizer:
    """SGD in one pass over memory where that gives the bits of PyTorch's default, which takes one per operation."""
    values = list(parameters)
    # The fused kernel rounds in another order where entries do not fill a vector register.
    full = all(value.numel() % REGISTER == 0 for value in values)
    plain = all(value.device.type == "cpu" and value.dtype in (torch.float32, torch.float64) for value in values)
    return torch.optim.SGD(values, **settings, fused=True if full and plain else None)


_ELEMENTWISE: Mapping[str, Callable[..., Optimizer]] = {
    "sgd": _sgd, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
}  # fmt: skip

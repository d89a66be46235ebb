"""Optimizers by name, or by any factory that takes parameters."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from closerlook.errors import UsageError

OptimizerFactory = Callable[[Iterable[Tensor]], Optimizer]

# These update every entry by itself, so one flat parameter gives the bits of many small ones, faster.
_ELEMENTWISE: Mapping[str, Callable[..., Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def is_elementwise(optimizer: str | OptimizerFactory) -> bool:
    """Whether the optimizer may be given one flat vector in place of the parameters."""
    return isinstance(optimizer, str)


def build_optimizer(
    optimizer: str | OptimizerFactory, parameters: Iterable[Tensor], lr: float | None, **settings: Any
) -> Optimizer:
    """The named optimizer with its settings, or what the factory makes of the parameters.

    Raises
    ------
    UsageError
        An unknown name, a missing learning rate, or settings beside a factory, which has its own.
    """
    if not isinstance(optimizer, str):
        if lr is not None or any(settings.values()):
            raise UsageError("an optimizer factory sets its own lr, momentum and weight decay; leave them out")
        return optimizer(parameters)
    if lr is None:
        raise UsageError(f"{optimizer} needs a learning rate: pass lr")
    if optimizer not in _ELEMENTWISE:
        raise UsageError(f"unknown optimizer {optimizer!r}; choose {' or '.join(_ELEMENTWISE)}, or pass a factory")
    if optimizer == "adam" and settings.pop("momentum", 0.0):
        raise UsageError("adam has no momentum setting; leave it at 0 or pass a factory")
    return _ELEMENTWISE[optimizer](parameters, lr=lr, **settings)

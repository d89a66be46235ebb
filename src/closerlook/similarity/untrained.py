"""The same network before any training: what similarity its architecture and the data alone give."""

import copy
from typing import Any

import torch
from torch import nn

from closerlook.errors import UsageError

APART = 1_000_000  # added to seeds: else the untrained network would be the very one that a training with it began from


def untrained(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose modules drew their parameters anew with their own ``reset_parameters``, from `seed` plus a million.

    PyTorch's layers all have that method, and it draws PyTorch's default initial values. A model that is initialised
    otherwise should be built anew and passed as it is.

    Raises
    ------
    UsageError
        A module holds parameters and cannot draw them anew.

    Examples
    --------
    >>> net = nn.Linear(3, 2)
    >>> first, again = untrained(net, 1), untrained(net, 1)
    >>> bool((first.weight == again.weight).all()), bool((first.weight == net.weight).any())
    (True, False)
    """
    made = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed + APART)
        for name, module in reversed(list(made.named_modules())):  # as in a constructor: what is inside comes first
            _reset(name, module)
    return made


def _reset(name: str, module: Any) -> None:
    if callable(getattr(module, "reset_parameters", None)):
        module.reset_parameters()
    elif callable(getattr(module, "_reset_parameters", None)):
        module._reset_parameters()
    elif any(True for _ in module.parameters(recurse=False)):
        raise UsageError(
            f"{name or 'the model'} ({type(module).__name__}) has parameters and no reset_parameters; build an "
            "untrained network yourself and pass it as untrained="
        )

"""Initial weights: three schemes, and a seed that leaves the global generators alone."""

import math
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import nn

from closerlook.errors import UsageError

Init = Literal["paper", "he", "torch"]
M = TypeVar("M", bound=nn.Module)


def seeded(make: Callable[[], M], seed: int) -> M:
    """What `make` builds with every draw coming from `seed`; the global generators stay as they were.

    Weights are drawn on the CPU and moved to the default device afterwards, so a seed means the same weights on
    every machine. On the meta device nothing is drawn.
    """
    device = torch.get_default_device()
    draw_on = "meta" if device.type == "meta" else "cpu"
    with torch.device(draw_on), torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that one also seeds the accelerators, which fork_rng would not put back.
        torch.default_generator.manual_seed(seed)
        model = make()
    return model.to(device)


def initialise(model: nn.Module, init: Init, gain: float = 1.0) -> None:
    """Draw the weights of every convolution and linear layer anew by one scheme.

    ``"paper"``: convolutions normal with std sqrt(2 / (k k out_channels)), linear layers normal with std 0.01, biases
    zero. ``"he"``: normal with std sqrt(2 / fan_in), biases zero. ``"torch"``: what PyTorch's layers draw themselves.
    Norm layers keep scale 1 and shift 0. `gain` multiplies every standard deviation.

    Raises
    ------
    UsageError
        There is no scheme of that name, or a gain with ``"torch"``, whose layers draw by themselves.

    References
    ----------
    "paper": Gotmare et al., A closer look at deep learning heuristics, arXiv 1810.13243 (the authors' VGG).
    "he": He et al., Delving deep into rectifiers, arXiv 1502.01852, equation 10.
    """
    if init not in ("paper", "he", "torch"):
        raise UsageError(f"unknown init {init!r}; choose paper, he or torch")
    if init == "torch":
        if gain != 1.0:
            raise UsageError("init_gain multiplies the standard deviation of init='paper' or 'he', not of 'torch'")
        return
    std = _paper_std if init == "paper" else _he_std
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, gain * std(module))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _paper_std(layer: nn.Conv2d | nn.Linear) -> float:
    if isinstance(layer, nn.Linear):
        return 0.01
    return math.sqrt(2 / (math.prod(layer.kernel_size) * layer.out_channels))


def _he_std(layer: nn.Conv2d | nn.Linear) -> float:
    return math.sqrt(2 / layer.weight[0].numel())

"""Residual blocks: a branch, a shortcut, and their sum."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from closerlook.errors import UsageError

Norm = Literal["batch", "group"]
Block = Callable[[int, int, int], nn.Module]
GROUPS = 8


class Residual(nn.Module):
    """``output(branch(x) + shortcut(x))``; `output` is a ReLU, or the identity in pre-activated blocks."""

    def __init__(self, branch: OrderedDict[str, nn.Module], shortcut: nn.Module, output: nn.Module):
        super().__init__()
        self.branch = nn.Sequential(branch)
        self.shortcut = shortcut
        self.output = output

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [n, units, h', w'] of maps [n, channels, h, w]."""
        return self.output(self.branch(maps) + self.shortcut(maps))


class PaddedShortcut(nn.Module):
    """Every `stride`-th pixel, and zeros for the `extra` channels: a shortcut without parameters ("option A")."""

    def __init__(self, extra: int, stride: int):
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [n, channels + extra, ceil(h / stride), ceil(w / stride)]."""
        return functional.pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Batch norm, or group norm in eight groups (fewer where eight do not divide the channels).

    Raises
    ------
    UsageError
        Another name.
    """
    if norm not in ("batch", "group"):
        raise UsageError(f"unknown norm {norm!r}; choose batch or group")
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def convolution(channels: int, units: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size of the map, over `stride`."""
    return nn.Conv2d(channels, units, size, stride, padding=size // 2, bias=False)


def padded(channels: int, units: int, stride: int) -> nn.Module:
    """The identity, padded with zero channels where the shape changes: He et al. 2015, option A."""
    return nn.Identity() if (channels, stride) == (units, 1) else PaddedShortcut(units - channels, stride)


def projected(channels: int, units: int, stride: int, norm: Norm | None) -> nn.Module:
    """The identity, or a 1x1 convolution (then `norm`) where the shape changes: He et al. 2015, option B."""
    if (channels, stride) == (units, 1):
        return nn.Identity()
    layers = OrderedDict[str, nn.Module](conv=convolution(channels, units, 1, stride))
    if norm is not None:
        layers["norm"] = norm_layer(norm, units)
    return nn.Sequential(layers)


def basic_block(channels: int, units: int, stride: int, norm: Norm, shortcut: nn.Module) -> Residual:
    """Two 3x3 convolutions, each with its norm, and a ReLU between them and after the sum."""
    branch = OrderedDict[str, nn.Module](
        conv1=convolution(channels, units, stride=stride), norm1=norm_layer(norm, units), relu1=nn.ReLU(),
        conv2=convolution(units, units), norm2=norm_layer(norm, units),
    )  # fmt: skip
    return Residual(branch, shortcut, nn.ReLU())


def preactivated_bottleneck(channels: int, units: int, stride: int, norm: Norm) -> Residual:
    """Norm and ReLU before each of three convolutions: 1x1 to a quarter of the units, 3x3, 1x1 to all of them."""
    inner = max(1, units // 4)
    branch = OrderedDict[str, nn.Module](
        norm1=norm_layer(norm, channels), relu1=nn.ReLU(), conv1=convolution(channels, inner, 1),
        norm2=norm_layer(norm, inner), relu2=nn.ReLU(), conv2=convolution(inner, inner, stride=stride),
        norm3=norm_layer(norm, inner), relu3=nn.ReLU(), conv3=convolution(inner, units, 1),
    )  # fmt: skip
    return Residual(branch, projected(channels, units, stride, None), nn.Identity())


def stages(block: Block, channels: int, units: Sequence[int], repeats: int) -> OrderedDict[str, nn.Module]:
    """``stage1``, ``stage2``, ... of ``block1`` to ``block<repeats>``; each stage but the first halves the map."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, width in enumerate(units, 1):
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for index in range(1, repeats + 1):
            blocks[f"block{index}"] = block(channels, width, 2 if number > 1 and index == 1 else 1)
            channels = width
        layers[f"stage{number}"] = nn.Sequential(blocks)
    return layers

"""VGG networks with and without batch norm, at any width and for any square image."""

from collections import OrderedDict
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from closerlook.errors import UsageError
from closerlook.models.convnet import ConvNet, check_positive, scaled
from closerlook.models.initial import Init, initialise, seeded

BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)
HIDDEN = 4096
Head = Literal["paper", "linear"]


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1 that is a plain matrix product on maps of at most 2x2.

    There every pixel meets every other, and a convolution spends more than half of its products on padding.
    """

    def __init__(self, channels: int, units: int):
        super().__init__(channels, units, kernel_size=3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [n, units, h, w] of maps [n, channels, h, w]."""
        n, channels, height, width = maps.shape
        if max(height, width) > 2:
            return super().forward(maps)
        # Rows are (unit, pixel), columns (pixel, channel): channels last, as weights and maps lie in memory.
        filters = self.weight.permute(0, 2, 3, 1).flatten(1, 2)
        taps, bias = _taps(height, width), self.bias
        assert bias is not None
        if len(taps) == 1:
            matrix = filters[:, taps[0]]
        else:
            chosen = filters.index_select(1, torch.tensor(taps, device=maps.device))
            matrix = chosen.view(-1, height * width * channels)
            bias = bias[:, None].expand(-1, height * width).flatten()
        made = functional.linear(maps.permute(0, 2, 3, 1).reshape(n, -1), matrix, bias)
        return made.view(n, -1, height, width).contiguous(memory_format=torch.channels_last)


@lru_cache
def _taps(height: int, width: int) -> tuple[int, ...]:
    """With which of a filter's nine weights pixel (i, j) of the output reads pixel (y, x), the former slowest."""
    rows, columns = range(height), range(width)
    return tuple(3 * (1 + y - i) + 1 + x - j for i in rows for j in columns for y in rows for x in columns)


class VGG(ConvNet):
    """Convolutions ``features.conv1``, ``features.norm1``, ``features.pool1``, ..., then ``head.fc1``, ...

    `image_size` is the only size of square images that the head fits. Build it with :func:`vgg`.
    """


def vgg(
    depth: int = 11,
    *,
    batch_norm: bool = False,
    width: float = 1.0,
    head: Head = "paper",
    head_norm: bool = False,
    bare_blocks: int = 0,
    classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    dropout: float = 0.5,
    init: Init = "paper",
    init_gain: float = 1.0,
    seed: int = 0,
) -> VGG:
    """VGG-11, -13, -16 or -19 (configurations A, B, D, E), in ``channels_last`` memory format.

    3x3 convolutions with bias, each followed by ReLU (with `batch_norm`: norm, then ReLU), a 2x2 max-pool after each
    of five blocks; a pool is left out where the map is already 1x1, so 8x8 and 16x16 images work. `width` multiplies
    the channels 64-128-256-512-512 and the head's 4096 units. With 224x224 images, 3 channels and 1000 classes the
    numbers of parameters are the published ones.

    Parameters
    ----------
    depth
        Layers with weights in the published network: 11, 13, 16 or 19.
    head
        ``"paper"``: Dropout-Linear-ReLU-Dropout-Linear-ReLU-Linear; ``"linear"``: one linear layer, no dropout.
    head_norm
        Batch norm before each ReLU of the paper's head, named ``head.norm1``, ``head.norm2``.
    bare_blocks
        How many of the first blocks of convolutions `batch_norm` leaves out; the other norms keep their numbers.
        Norms draw nothing: wherever they stand, a seed gives every convolution and linear layer the same weights.
    init
        See :func:`closerlook.models.initial.initialise`. Without batch norm ``"torch"`` (and ``"paper"`` on small
        budgets) stalls at the loss of guessing, log(classes); ``"he"`` trains.
    init_gain
        Multiplies the standard deviation of every initial weight.
    seed
        Decides every initial weight; the global generators stay as they were.

    Raises
    ------
    UsageError
        Another depth, head or init; a width, size or number of channels or classes that leaves no unit; a place for
        batch norm that the network does not have.

    Examples
    --------
    >>> model = vgg(11, width=0.25, in_channels=1, image_size=16, head="linear", init="he", seed=1)
    >>> model(torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 10])

    References
    ----------
    Simonyan and Zisserman, arXiv 1409.1556, table 1; head and init: Gotmare et al., arXiv 1810.13243.
    """
    if depth not in BLOCKS:
        raise UsageError(f"there is no VGG-{depth}; choose a depth of {', '.join(map(str, BLOCKS))}")
    if head not in ("paper", "linear"):
        raise UsageError(f"unknown head {head!r}; choose paper or linear")
    check_positive(width=width, init_gain=init_gain, image_size=image_size, in_channels=in_channels, classes=classes)
    _check_norms(batch_norm, bare_blocks, head, head_norm)
    normed = range(bare_blocks + 1, len(CHANNELS) + 1) if batch_norm else range(0)

    def make() -> VGG:
        features, flat = _features(BLOCKS[depth], normed, width, in_channels, image_size)
        network = VGG(features, _head(head, flat, scaled(HIDDEN, width), classes, dropout, head_norm), image_size)
        initialise(network, init, init_gain)
        return network

    return seeded(make, seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _check_norms(batch_norm: bool, bare_blocks: int, head: Head, head_norm: bool) -> None:
    """Refuse places for batch norm that the network does not have: it would silently be another network."""
    if head_norm and head == "linear":
        raise UsageError("head_norm has no place in a linear head; choose head='paper'")
    if not 0 <= bare_blocks <= len(CHANNELS):
        raise UsageError(f"bare_blocks {bare_blocks} must be from 0 to {len(CHANNELS)}, the number of blocks")
    if bare_blocks and not batch_norm:
        raise UsageError("bare_blocks leaves out norms where there are none; choose batch_norm=True, as in vgg11_bn")


def _features(
    blocks: tuple[int, ...], normed: range, width: float, channels: int, size: int
) -> tuple[nn.Sequential, int]:
    """The convolution stack, with batch norm in the blocks `normed`, and the number of values it leaves per image."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    number = 0
    for block, (repeats, units) in enumerate(zip(blocks, CHANNELS, strict=True), 1):
        for _ in range(repeats):
            number += 1
            layers[f"conv{number}"] = Conv3x3(channels, scaled(units, width))
            channels = scaled(units, width)
            if block in normed:
                layers[f"norm{number}"] = nn.BatchNorm2d(channels)
            # Not in place: a hook on the layer before would otherwise keep the rectified values.
            layers[f"relu{number}"] = nn.ReLU()
        if size > 1:
            layers[f"pool{block}"] = nn.MaxPool2d(2)
            size //= 2
    return nn.Sequential(layers), channels * size * size


def _head(kind: Head, flat: int, hidden: int, classes: int, dropout: float, norm: bool) -> nn.Sequential:
    if kind == "linear":
        return nn.Sequential(OrderedDict(fc1=nn.Linear(flat, classes)))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, units in ((1, flat), (2, hidden)):
        layers[f"dropout{number}"] = nn.Dropout(dropout)
        layers[f"fc{number}"] = nn.Linear(units, hidden)
        if norm:
            layers[f"norm{number}"] = nn.BatchNorm1d(hidden)
        layers[f"relu{number}"] = nn.ReLU()
    layers["fc3"] = nn.Linear(hidden, classes)
    return nn.Sequential(layers)

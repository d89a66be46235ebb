"""Residual networks for small images: He's 6n + 2 layers, ResNet-18 with a 3x3 stem, PreResNet-110."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from closerlook.errors import UsageError
from closerlook.models.convnet import ConvNet, check_positive, scaled
from closerlook.models.initial import Init, initialise, seeded
from closerlook.models.residual import (
    Norm,
    basic_block,
    convolution,
    norm_layer,
    padded,
    preactivated_bottleneck,
    projected,
    stages,
)

Layers = OrderedDict[str, nn.Module]


class ResNet(ConvNet):
    """``features``: stem, ``stage1.block1``, ..., mean over the map; ``head.fc1``. Images of any size.

    A block adds its ``branch`` and its ``shortcut`` and gives the sum to its ``output``.
    """


def resnet(
    depth: int = 20,
    *,
    norm: Norm = "batch",
    width: float = 1.0,
    classes: int = 10,
    in_channels: int = 3,
    init: Init = "he",
    seed: int = 0,
) -> ResNet:
    """CIFAR ResNet of 6n + 2 layers, in ``channels_last`` memory format: 3x3 stem, three stages of n basic blocks.

    16-32-64 channels times `width`. A shortcut across a change of shape takes every second pixel and pads the new
    channels with zeros (option A), so it has no parameters: 0.27 million for depth 20, 0.85 for 56, 1.7 for 110.

    Parameters
    ----------
    depth
        Layers with weights on the longest path: 8, 14, 20, ..., 56, ..., 110.
    norm
        ``"batch"`` as published, or ``"group"``: eight groups, statistics of each image alone.
    init
        See :func:`closerlook.models.initial.initialise`; ``"he"`` as published.
    seed
        Decides every initial weight; the global generators stay as they were.

    Raises
    ------
    UsageError
        Another depth, norm or init; a width or number of channels or classes that leaves no unit.

    Examples
    --------
    >>> resnet(8, in_channels=1, seed=1)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])

    References
    ----------
    He, Zhang, Ren and Sun, Deep residual learning for image recognition, arXiv 1512.03385, section 4.2.
    """
    if depth < 8 or depth % 6 != 2:
        raise UsageError(f"there is no ResNet-{depth} of 6n + 2 layers; choose a depth of 8, 14, 20, ..., 110")
    units = [scaled(units, width) for units in (16, 32, 64)]

    def layers() -> Layers:
        def block(channels: int, units: int, stride: int) -> nn.Module:
            return basic_block(channels, units, stride, norm, padded(channels, units, stride))

        return OrderedDict({**_stem(in_channels, units[0], norm), **stages(block, units[0], units, depth // 6)})

    return _built(layers, units[-1], width, in_channels, classes, init, seed)


def resnet18(
    *,
    norm: Norm = "batch",
    width: float = 1.0,
    classes: int = 10,
    in_channels: int = 3,
    init: Init = "he",
    seed: int = 0,
) -> ResNet:
    """ResNet-18 for small images, in ``channels_last`` memory format: a 3x3 stem of stride 1 and no max-pool before it.

    Four stages of two basic blocks with 64-128-256-512 channels times `width`; a 1x1 convolution and a norm on the
    shortcut where the shape changes (option B). 11.17 million parameters with 10 classes. Arguments and errors as
    :func:`resnet`.

    Examples
    --------
    >>> resnet18(width=0.25, norm="group")(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 10])

    References
    ----------
    He et al., arXiv 1512.03385, table 1, with the stem of section 4.2; the ResNet of Gotmare et al., arXiv 1810.13243.
    """
    units = [scaled(units, width) for units in (64, 128, 256, 512)]

    def layers() -> Layers:
        def block(channels: int, units: int, stride: int) -> nn.Module:
            return basic_block(channels, units, stride, norm, projected(channels, units, stride, norm))

        return OrderedDict({**_stem(in_channels, units[0], norm), **stages(block, units[0], units, 2)})

    return _built(layers, units[-1], width, in_channels, classes, init, seed)


def preresnet110(
    *,
    norm: Norm = "batch",
    width: float = 1.0,
    classes: int = 10,
    in_channels: int = 3,
    init: Init = "he",
    seed: int = 0,
) -> ResNet:
    """PreResNet-110 as papers on mode connectivity use it, in ``channels_last`` memory format.

    A 3x3 stem of 16 channels, three stages of 12 pre-activated bottlenecks (norm, ReLU and convolution, three times)
    with 64-128-256 channels, all times `width`, a last norm and ReLU; a 1x1 convolution on the shortcut where the shape
    changes. It has 110 layers, but is not the network of 54 basic blocks that He et al. call by the same number.
    Arguments and errors as :func:`resnet`.

    Examples
    --------
    >>> preresnet110(width=0.25)(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 10])

    References
    ----------
    He et al., Identity mappings in deep residual networks, arXiv 1603.05027; Garipov et al., arXiv 1802.10026.
    """
    units = [scaled(units, width) for units in (64, 128, 256)]

    def layers() -> Layers:
        def block(channels: int, units: int, stride: int) -> nn.Module:
            return preactivated_bottleneck(channels, units, stride, norm)

        first = scaled(16, width)
        stem: Layers = OrderedDict(conv=convolution(in_channels, first))
        end = {"norm": norm_layer(norm, units[-1]), "relu": nn.ReLU()}
        return OrderedDict({**stem, **stages(block, first, units, 12), **end})

    return _built(layers, units[-1], width, in_channels, classes, init, seed)


def _stem(channels: int, units: int, norm: Norm) -> Layers:
    return OrderedDict(conv=convolution(channels, units), norm=norm_layer(norm, units), relu=nn.ReLU())


def _built(
    layers: Callable[[], Layers], units: int, width: float, in_channels: int, classes: int, init: Init, seed: int
) -> ResNet:
    check_positive(width=width, in_channels=in_channels, classes=classes)

    def make() -> ResNet:
        features = nn.Sequential(OrderedDict({**layers(), "pool": nn.AdaptiveAvgPool2d(1)}))
        network = ResNet(features, nn.Sequential(OrderedDict(fc1=nn.Linear(units, classes))))
        initialise(network, init)
        return network

    return seeded(make, seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

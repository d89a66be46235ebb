"""The shallow student of the paper's distillation study."""

from collections import OrderedDict

import torch
from torch import nn

from closerlook.models.convnet import ConvNet, check_positive, scaled
from closerlook.models.initial import Init, initialise, seeded

CHANNELS = (32, 64)
HIDDEN = (256, 128)


class ShallowCNN(ConvNet):
    """``features.conv1`` to ``features.relu2``, ``head.fc1`` to ``head.fc3``. Build it with :func:`shallow_cnn`."""


def shallow_cnn(
    *,
    width: float = 1.0,
    classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    init: Init = "he",
    seed: int = 0,
) -> ShallowCNN:
    """(Convolution, max-pool, ReLU) twice, two hidden linear layers, a classifier; ``channels_last`` memory format.

    5x5 convolutions of 32 and 64 channels, hidden layers of 256 and 128 units, all times `width`. The kinds of layers
    and their order are the paper's; their sizes are this project's. A pool is left out where the map is already 1x1.

    Parameters
    ----------
    init
        See :func:`closerlook.models.initial.initialise`.
    seed
        Decides every initial weight; the global generators stay as they were.

    Raises
    ------
    UsageError
        Another init; a width, size or number of channels or classes that leaves no unit.

    Examples
    --------
    >>> shallow_cnn(in_channels=1, image_size=16)(torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 10])

    References
    ----------
    The student of Gotmare et al., arXiv 1810.13243, section 5.
    """
    check_positive(width=width, image_size=image_size, in_channels=in_channels, classes=classes)

    def make() -> ShallowCNN:
        features, flat = _features(in_channels, image_size, width)
        first, second = (scaled(units, width) for units in HIDDEN)
        head = OrderedDict[str, nn.Module](
            fc1=nn.Linear(flat, first), relu1=nn.ReLU(), fc2=nn.Linear(first, second), relu2=nn.ReLU(),
            fc3=nn.Linear(second, classes),
        )  # fmt: skip
        network = ShallowCNN(features, nn.Sequential(head), image_size)
        initialise(network, init)
        return network

    return seeded(make, seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _features(channels: int, size: int, width: float) -> tuple[nn.Sequential, int]:
    """The convolutions, and the number of values they leave per image."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, units in enumerate((scaled(units, width) for units in CHANNELS), 1):
        layers[f"conv{number}"] = nn.Conv2d(channels, units, 5, padding=2)
        if size > 1:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            size //= 2
        layers[f"relu{number}"] = nn.ReLU()
        channels = units
    return nn.Sequential(layers), channels * size * size

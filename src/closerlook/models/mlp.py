"""A fully connected network for images of any shape."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from closerlook.errors import UsageError
from closerlook.models.initial import Init, initialise, seeded


def mlp(
    in_features: int, hidden: Sequence[int] = (256, 128), classes: int = 10, init: Init = "he", *, seed: int = 0
) -> nn.Sequential:
    """Flatten, then linear layers of `hidden` units with ReLU, then a linear layer: inputs [n, ...] to [n, classes].

    Layers are named ``flatten``, ``fc1``, ``relu1``, ``fc2``, ...

    Parameters
    ----------
    in_features
        Values per input: channels times height times width.
    init
        See :func:`closerlook.models.initial.initialise`.
    seed
        Decides every initial weight; the global generators stay as they were.

    Raises
    ------
    UsageError
        A number of units, inputs or classes below 1, or an unknown init.

    Examples
    --------
    >>> import torch
    >>> mlp(64, (32,), classes=10)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """
    sizes = (in_features, *hidden, classes)
    if min(sizes) < 1:
        raise UsageError(f"every layer needs at least one unit; got {sizes}")

    def make() -> nn.Sequential:
        network = nn.Sequential(OrderedDict(_layers(sizes)))
        initialise(network, init)
        return network

    return seeded(make, seed)


def _layers(sizes: tuple[int, ...]) -> list[tuple[str, nn.Module]]:
    layers: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
    for number in range(1, len(sizes)):
        layers.append((f"fc{number}", nn.Linear(sizes[number - 1], sizes[number])))
        if number < len(sizes) - 1:
            layers.append((f"relu{number}", nn.ReLU()))
    return layers

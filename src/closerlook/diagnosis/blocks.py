"""Blocks of a network nobody described: at most five, in order of depth."""

from collections.abc import Sequence
from itertools import groupby

from torch import nn

from closerlook.errors import UsageError
from closerlook.weights import WeightSpace, named

MOST = 5
_LARGE = 0.4  # of all layers: what holds more is looked into

Blocks = dict[str, tuple[str, ...]]


def blocks_of_depth(model: nn.Module, most: int = MOST) -> Blocks:
    """Patterns of the parameters of at most `most` blocks, in the order in which the model names its parameters.

    It begins with the children of the model. What holds more than two fifths of all layers is split into its own
    children, again and again; then the two neighbours that hold the fewest layers together are merged until `most` are
    left. A layer is a module that owns trained parameters; a parameter of the model itself counts as one.

    Raises
    ------
    UsageError
        Nothing is trained.

    Examples
    --------
    >>> body = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    >>> blocks_of_depth(nn.Sequential(body, nn.Linear(4, 2)), most=3)
    {'0.0, 0.1': ('0.0.*', '0.1.*'), '0.2, 0.3': ('0.2.*', '0.3.*'), '0.4 to 1': ('0.4.*', '0.5.*', '1.*')}
    """
    every = named(model).parameters
    names = [name for name in WeightSpace(model).names if every[name].requires_grad]
    layers = list(dict.fromkeys(_layer(name) for name in names))
    if not layers:
        raise UsageError("no parameter of this network is trained (requires_grad): there is nothing to warm up")
    groups = _merged([[part] for part in _split(layers, 1, len(layers))], layers, most)
    return {_title(group): tuple(_pattern(part, names) for part in group) for group in groups}


def _layer(name: str) -> str:
    """The module that owns a parameter, or the parameter itself where that is the model."""
    return name.rpartition(".")[0] or name


def _split(layers: Sequence[str], depth: int, total: int) -> list[str]:
    """Prefixes of layers, in order, none of which holds too many of them."""
    found = list[str]()
    for prefix, inside in groupby(layers, lambda layer: ".".join(layer.split(".")[:depth])):
        own = list(inside)
        large = len(own) > _LARGE * total and own != [prefix]
        found += _split(own, depth + 1, total) if large else [prefix]
    return list(dict.fromkeys(found))


def _merged(groups: list[list[str]], layers: Sequence[str], most: int) -> list[list[str]]:
    def size(group: Sequence[str]) -> int:
        return sum(any(_inside(layer, part) for part in group) for layer in layers)

    while len(groups) > most:
        sizes = [size(group) for group in groups]
        place = min(range(len(groups) - 1), key=lambda at: sizes[at] + sizes[at + 1])
        groups[place : place + 2] = [groups[place] + groups[place + 1]]
    return groups


def _inside(layer: str, prefix: str) -> bool:
    return layer == prefix or layer.startswith(f"{prefix}.")


def _pattern(prefix: str, names: Sequence[str]) -> str:
    return prefix if prefix in names else f"{prefix}.*"


def _title(group: Sequence[str]) -> str:
    return ", ".join(group) if len(group) < 3 else f"{group[0]} to {group[-1]}"

"""The user's own data: ``package.module:function -> (train, validation, test)``."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from closerlook.data.batches import TensorBatches
from closerlook.data.seeds import generator
from closerlook.data.source import Pair, Source
from closerlook.errors import LoaderError, UsageError
from closerlook.models import load_target

NAMES = ("train", "validation", "test")


class Loaders(NamedTuple):
    """Training, validation and test part, each a re-iterable of batches."""

    train: Iterable[Any]
    validation: Iterable[Any]
    test: Iterable[Any]


def custom(target: str | tuple[Any, Any, Any]) -> Source:
    """A source from three parts, or from the function that returns them: it can be split, seeded and augmented.

    Each part is an ``(inputs [n, ...], targets [n])`` pair of tensors or arrays, or a map-style torch Dataset of
    ``(x, y)`` items, y an integer. A Dataset is read once, in order, and kept in memory; a random transform in it is so
    drawn once, from a fixed seed. Augmentation belongs into the batches.

    Raises
    ------
    UsageError
        There are not three parts, lengths differ, targets are not integers from 0, or an item is not ``(x, y)``.
    LoaderError
        A part is a loader: its order cannot be seeded; :func:`loaders` takes it as it is.

    Examples
    --------
    >>> part = (torch.zeros(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
    >>> custom((part, part, part)).classes
    3
    """
    parts = dict(zip(NAMES, _three(target), strict=True))
    pairs = {name: _pair(part, name) for name, part in parts.items()}
    name = target if isinstance(target, str) else "custom"
    classes = 1 + max(int(pair.targets.max()) for pair in pairs.values())
    return Source(*pairs["train"], *pairs["test"], classes=classes, name=name, validation=pairs["validation"])


def loaders(target: str | tuple[Any, Any, Any], *, batch_size: int) -> Loaders:
    """The three parts as loaders, in their own order: loaders as they are, pairs and Datasets in batches.

    For instruments that only read. Training with seeds, subsets or augmentation needs :func:`custom`.

    Raises
    ------
    UsageError
        As :func:`custom`.
    LoaderError
        A part is a one-shot iterator, or empty.
    """
    return Loaders(*(_loader(part, name, batch_size) for name, part in zip(NAMES, _three(target), strict=True)))


def _three(target: str | tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    parts = load_target(target)() if isinstance(target, str) else target
    if not isinstance(parts, tuple | list) or len(parts) != 3:
        source = target if isinstance(target, str) else "custom data"
        got = f"{len(parts)} parts" if isinstance(parts, tuple | list) else type(parts).__name__
        raise UsageError(f"{source}: need (train, validation, test), got {got}")
    return tuple(parts)


def _loader(part: Any, name: str, batch_size: int) -> Iterable[Any]:
    if _is_pair(part) or isinstance(part, Dataset):
        return TensorBatches(*_pair(part, name), batch_size)
    if isinstance(part, Iterator) or not isinstance(part, Iterable):
        raise LoaderError(f"{name} is a {type(part).__name__}; a loader must be iterable again and again")
    return part


def _is_pair(part: Any) -> bool:
    return isinstance(part, tuple | list) and len(part) == 2 and all(hasattr(side, "shape") for side in part)


def _pair(part: Any, name: str) -> Pair:
    if _is_pair(part):
        inputs, targets = (torch.as_tensor(side) for side in part)
    elif isinstance(part, Dataset) and hasattr(part, "__len__"):
        inputs, targets = _materialised(part, name)
    elif isinstance(part, DataLoader) or (isinstance(part, Iterable) and not isinstance(part, Dataset)):
        raise LoaderError(
            f"{name} is a loader ({type(part).__name__}): its order and subset cannot be seeded; return the pair "
            "(inputs, targets) or the Dataset instead"
        )
    else:
        raise UsageError(f"{name} is a {type(part).__name__}; need (inputs, targets) or a Dataset with a length")
    return _checked(inputs, targets, name)


def _materialised(dataset: Any, name: str) -> tuple[Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(generator(0).get_state())
        items = [_item(dataset[index], name, index) for index in range(len(dataset))]
    if not items:
        raise LoaderError(f"{name} is an empty Dataset")
    if len({inputs.shape for inputs, _ in items}) > 1:
        raise UsageError(f"{name}: items have different shapes and cannot be stacked")
    return torch.stack([inputs for inputs, _ in items]), torch.tensor([target for _, target in items])


def _item(item: Any, name: str, index: int) -> tuple[Tensor, int]:
    try:
        inputs, target = item
        return torch.as_tensor(inputs), int(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name}[{index}] is not (x, y) with x a tensor or array and y an integer: {error}") from error


def _checked(inputs: Tensor, targets: Tensor, name: str) -> Pair:
    if targets.ndim != 1 or len(inputs) != len(targets) or len(targets) == 0:
        raise UsageError(
            f"{name}: inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}; need n > 0 inputs, n targets [n]"
        )
    if targets.is_floating_point() or targets.is_complex() or int(targets.min()) < 0:
        raise UsageError(f"{name}: targets must be integers from 0, got {targets.dtype}")
    return Pair(inputs, targets.long())

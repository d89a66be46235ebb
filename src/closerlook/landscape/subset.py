"""Examples of a loader in a seeded random order, so that a part of them stands for all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from closerlook.batches import Loader, batches_of, tensors_in
from closerlook.errors import LoaderError


@dataclass(frozen=True)
class Subset:
    """A loader's examples, of which any first n are a random sample without replacement.

    The loader is passed once for each `batches`; only what was asked for is kept in memory.

    Raises
    ------
    LoaderError
        Batches whose tensors do not all have the examples along their first dimension.
    """

    loader: Loader
    seed: int = 0
    sizes: list[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", [_length(batch) for batch in batches_of(self.loader)])
        order = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(self.seed))).permutation(self.total)
        object.__setattr__(self, "_rank", np.argsort(order))

    @property
    def total(self) -> int:
        """Number of examples N."""
        return sum(self.sizes)

    def batches(self, low: int, high: int) -> tuple[list[Any], np.ndarray]:
        """Batches of the examples number low .. high - 1 of the random order, and their numbers in that order."""
        rank = self.__dict__["_rank"]
        kept: list[Any] = []
        numbers: list[np.ndarray] = []
        start = 0
        for batch, size in zip(batches_of(self.loader), self.sizes, strict=True):
            own = rank[start : start + size]
            chosen = np.flatnonzero((own >= low) & (own < high))
            start += size
            if len(chosen):
                kept.append(_pick(batch, torch.from_numpy(chosen)))
                numbers.append(own[chosen])
        return list(_joined(kept, max(self.sizes))), np.concatenate(numbers)


def _joined(batches: list[Any], most: int) -> Iterator[Any]:
    """Neighbouring batches put together up to `most` examples, where their shapes allow it."""
    held: list[Any] = []
    for batch in batches:
        full = sum(map(_length, held)) + _length(batch) > most
        if held and (full or _shapes(held[0]) != _shapes(batch)):
            yield _cat(held)
            held = []
        held.append(batch)
    if held:
        yield _cat(held)


def _length(batch: Any) -> int:
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in tensors_in(batch)}
    if len(lengths) != 1 or 0 in lengths:
        raise LoaderError(
            "a part of the images can only be read from batches whose tensors all have the examples along their first "
            "dimension; leave tolerance out, and all of them are read"
        )
    return lengths.pop()


def _shapes(batch: Any) -> list[torch.Size]:
    return [tensor.shape[1:] for tensor in tensors_in(batch)]


def _pick(batch: Any, chosen: Tensor) -> Any:
    return _mapped(lambda tensors: tensors[0][chosen.to(tensors[0].device)], [batch])


def _cat(batches: Sequence[Any]) -> Any:
    return batches[0] if len(batches) == 1 else _mapped(torch.cat, batches)


def _mapped(function: Any, batches: Sequence[Any]) -> Any:
    """The same structure with ``function(tensors)`` in place of the batches' tensors at each place."""
    first = batches[0]
    if isinstance(first, Tensor):
        return function(list(batches))
    if isinstance(first, Mapping):
        return {name: _mapped(function, [batch[name] for batch in batches]) for name in first}
    if isinstance(first, tuple | list):
        items = [_mapped(function, list(column)) for column in zip(*batches, strict=True)]
        return type(first)(*items) if hasattr(first, "_fields") else type(first)(items)
    return first

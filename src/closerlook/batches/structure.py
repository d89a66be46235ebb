"""What a batch is made of: tensors in containers of any kind and depth."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def to_device(batch: Any, device: torch.device, contiguous: bool = False) -> Any:
    """The batch with every tensor on `device`, containers of the same types; 4 and 5 axes contiguous where asked."""
    if isinstance(batch, Tensor):
        moved = batch.to(device, non_blocking=device.type != "cpu")
        # A clone in any case: of one channel, both layouts count as contiguous, and convolutions look at the strides.
        return moved.clone(memory_format=torch.contiguous_format) if contiguous and moved.ndim in (4, 5) else moved
    if isinstance(batch, Mapping):
        return {name: to_device(value, device, contiguous) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        items = [to_device(value, device, contiguous) for value in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    return batch


def parts(batch: Any, path: str = "batch") -> Iterator[tuple[str, Any]]:
    """Everything in a batch with the path to it: containers (mappings, sequences, dataclasses), then what is in them.

    Examples
    --------
    >>> [path for path, _ in parts({"x": torch.zeros(2), "more": [1, "text"]})]
    ['batch', 'batch.x', 'batch.more', 'batch.more.0', 'batch.more.1']
    """
    yield path, batch
    inside: Any = ()
    if isinstance(batch, Mapping):
        inside = batch.items()
    elif isinstance(batch, tuple | list):
        inside = enumerate(batch)
    elif is_dataclass(batch):
        inside = vars(batch).items()
    for name, value in inside:
        yield from parts(value, f"{path}.{name}")


def tensors_in(batch: Any) -> list[Tensor]:
    """The tensors of a batch, in the order in which its containers hold them."""
    return [value for _, value in parts(batch) if isinstance(value, Tensor)]


def lengths(batch: Any) -> set[int]:
    """What may be the number of examples of a batch: first dimensions of its tensors, lengths of its lists."""
    shaped = (value for _, value in parts(batch))
    return {
        len(value)
        for value in shaped
        if (isinstance(value, Tensor | np.ndarray) and value.ndim > 0) or isinstance(value, tuple | list)
    }


def copied(batch: Any) -> dict[str, Any]:
    """Own copies of a batch's tensors (arrays as tensors), numbers and texts, by path."""
    kept: dict[str, Any] = {}
    for path, value in parts(batch):
        if isinstance(value, Tensor):
            kept[path] = (value.to_dense() if value.layout != torch.strided else value).detach().cpu().clone()
        elif isinstance(value, np.ndarray):
            kept[path] = torch.tensor(value) if value.dtype.kind in "biufc" else str(value.tolist())
        elif isinstance(value, str | bytes | int | float):
            kept[path] = value
    return kept


def identical(a: Any, b: Any) -> bool:
    """Whether two entries of `copied` are equal: type, shape and every number; NaN equals NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
    return type(a) is type(b) and bool(a == b or a != a)

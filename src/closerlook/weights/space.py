"""Points of weight space: a model's parameters as one flat vector."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from closerlook.checkpoints import Checkpoint, read_checkpoint
from closerlook.errors import MismatchError, UsageError
from closerlook.weights.differences import Difference
from closerlook.weights.names import fitted, named


@dataclass(frozen=True, eq=False)
class Point:
    """A point of weight space: `.vector` [D], the buffers that came with it, and where it is from."""

    vector: Tensor
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    origin: str = "memory"

    @property
    def dtype(self) -> torch.dtype:
        """Type of the vector's entries."""
        return self.vector.dtype


class WeightSpace:
    """The space of a model's parameters: `.size` D and `.names`.

    Parameters
    ----------
    model
        Any module. It is only read. What torch.compile, DataParallel and AveragedModel put before a name is no
        part of it; tied parameters are one set of coordinates.
    params
        Patterns of parameter names, such as ``"*"``, ``"head.*"`` or ``"*lora*"``; what they leave out stays as
        it is in the model.

    Raises
    ------
    UsageError
        No parameter matches, or a lazy module has not seen a batch yet.

    Examples
    --------
    >>> space = WeightSpace(nn.Linear(3, 2))
    >>> space.size, space.names
    (8, ('weight', 'bias'))
    """

    def __init__(self, model: nn.Module, params: str = "*") -> None:
        found = named(model)
        owners: dict[int, str] = {}
        self._alias = {name: owners.setdefault(id(value), name) for name, value in found.parameters.items()}
        lazy = [name for name, value in found.parameters.items() if is_lazy(value)]
        if lazy:
            raise UsageError(f"{lazy[0]} has no shape yet; pass one batch through the model first")
        chosen = [name for name in owners.values() if fnmatchcase(name, params)]
        if not chosen:
            raise UsageError(f"no parameter matches {params!r}; the names are {', '.join(owners.values()) or 'none'}")
        self.shapes = {name: found.parameters[name].shape for name in chosen}
        self._known = {name: value.shape for name, value in {**found.parameters, **found.buffers}.items()}
        self._persistent = found.persistent
        self._stored = found.stored

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of the vector."""
        return tuple(self.shapes)

    @property
    def size(self) -> int:
        """Number of coordinates D."""
        return sum(prod(shape) for shape in self.shapes.values())

    def slices(self) -> Iterator[tuple[str, torch.Size, slice]]:
        """Name, shape and range of every parameter in the vector."""
        start = 0
        for name, shape in self.shapes.items():
            yield name, shape, slice(start, start + prod(shape))
            start += prod(shape)

    def point(self, source: Any) -> Point:
        """The point of a model, a state dict, a checkpoint's path or a bare vector [D].

        Parameters are matched by name and shape, never by position. A checkpoint may be a file of PyTorch or
        safetensors, or a folder of several: see `closerlook.checkpoints`.

        Raises
        ------
        CheckpointError
            A file that is missing, damaged, or cannot be read without running code.
        MismatchError
            Names, shapes or types do not fit; the message lists the differences and the likely cause.
        """
        if isinstance(source, Point):
            return self._checked(source)
        if isinstance(source, Tensor):
            return self._checked(Point(source.detach().reshape(-1).clone()))
        if isinstance(source, nn.Module):
            return self._from_state(named(source).state(), "the other model")
        if isinstance(source, Mapping):
            return self._from_state(source, "the state dict")
        if isinstance(source, str | Path):
            source = read_checkpoint(source)
        if isinstance(source, Checkpoint):
            return self._from_state(source.tensors, source.origin)
        raise UsageError(f"cannot read weights from a {type(source).__name__}; give a model, a state dict or a path")

    def state_dict(self, point: Point) -> dict[str, Tensor]:
        """The state dict of a point, as the model's own names it: parameters (tied ones under each name), buffers.

        Examples
        --------
        >>> layer = nn.Linear(3, 2)
        >>> layer.load_state_dict(WeightSpace(layer).state_dict(Point(torch.zeros(8))))
        <All keys matched successfully>
        """
        self._checked(point)
        parts = {name: point.vector[span].view(shape) for name, shape, span in self.slices()}
        tied = {alias: parts[owner] for alias, owner in self._alias.items() if owner in parts}
        return {self._stored.get(name, name): value for name, value in {**tied, **point.buffers}.items()}

    def _checked(self, point: Point) -> Point:
        if point.vector.shape != (self.size,):
            raise MismatchError(f"a vector of {point.vector.numel()} entries for a space of {self.size}; other model?")
        return point

    def _from_state(self, state: Mapping[str, Any], origin: str) -> Point:
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        own = {raw: name for name, raw in self._stored.items()}  # wrappers inside the model itself, where they stand
        plain = own if tensors.keys() <= own.keys() else fitted(tensors, self._known)
        values = {plain[key]: value.detach() for key, value in tensors.items() if key in plain}
        self._share(values, origin)
        shapes = {name: value.shape for name, value in values.items()}
        difference = Difference.between(shapes, self.shapes, self._known)
        if difference:
            raise MismatchError(difference.text(origin))
        chosen = {name: values[name] for name in self.names}
        _check_types(chosen, origin)
        vector = torch.cat([value.reshape(-1) for value in chosen.values()])
        buffers = {name: value.clone() for name, value in values.items() if name in self._persistent}
        return Point(vector, buffers, origin)

    def _share(self, values: dict[str, Tensor], origin: str) -> None:
        """Find tied parameters under whichever of their names are there, and refuse unequal ones."""
        for alias, owner in self._alias.items():
            if alias == owner or alias not in values:
                continue
            if not _same(values.setdefault(owner, values[alias]), values[alias]):
                raise MismatchError(
                    f"{origin} has other numbers in {alias} than in {owner}, which the model ties to one tensor; build "
                    "the model untied, or drop one of the two"
                )


def _same(a: Tensor, b: Tensor) -> bool:
    # One memory first: NaN is not equal to itself, and is somebody else's error.
    return a.data_ptr() == b.data_ptr() or (a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b))


def _check_types(chosen: Mapping[str, Tensor], origin: str) -> None:
    empty = [name for name, value in chosen.items() if value.is_meta]
    if empty:
        raise MismatchError(f"{origin}: {empty[0]} lies on the meta device and has no numbers; load the weights first")
    examples = {value.dtype: name for name, value in chosen.items()}
    if len(examples) > 1:
        found = ", ".join(f"{dtype} ({name})" for dtype, name in examples.items())
        raise MismatchError(f"{origin} mixes {found}; convert it to one type, or leave the others out with params")

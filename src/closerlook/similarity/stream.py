"""Sums over a stream of examples, in groups: checked, merged, saved, taken together."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from closerlook.errors import LoaderError, MismatchError, NotFiniteError, StoreError, UsageError
from closerlook.files import read_tensors, write_tensors
from closerlook.similarity.memory import refuse_above

Rows = Tensor | NDArray[Any]
FIRST = 512  # examples of the first batch whose mean is subtracted from all


class Form(Protocol):
    """What is summed: sums of equal forms can be merged."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers."""

    @property
    def bytes(self) -> int:
        """What one set of sums takes."""

    @property
    def bytes_read(self) -> int:
        """What is made of it when it is read."""

    def note(self) -> dict[str, Any]:
        """The form as JSON."""


class Summed(Protocol):
    """The sums of one group of examples, after a shift."""

    shift: Tensor
    n: int

    @property
    def form(self) -> Any:
        """What is summed."""

    def add(self, layers: Sequence[Tensor]) -> None:
        """Add examples."""

    def flush(self) -> None:
        """Bring waiting examples into the sums."""

    def merge(self, other: Any) -> None:
        """Add the sums of other examples, whatever their shift."""

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name, to be stored or filled."""


class Stream(ABC):
    """Sums of layers by name, in one or several groups of examples; `Moments` says what the parameters are."""

    def __init__(
        self,
        *,
        dtype: torch.dtype | None = None,
        cut: float = 1.0,
        groups: int = 1,
        max_bytes: int | None = None,
    ) -> None:
        if groups < 1 or cut <= 0:
            raise UsageError(f"groups are 1 or more and cut is above 0; got {groups} and {cut}")
        self._forward = dtype or torch.float32
        self._fixed = dtype is not None
        self._cut, self._count, self._max_bytes = cut, groups, max_bytes
        self._sums: list[Any] = []
        self._seen = 0
        self._read: dict[Any, Any] = {}

    @staticmethod
    @abstractmethod
    def _make(form: Any, shift: Tensor) -> Summed:
        """Empty sums."""

    @staticmethod
    @abstractmethod
    def _form_of(note: Mapping[str, Any]) -> Any:
        """The form that a note describes."""

    @property
    def n(self) -> int:
        """Number of examples so far."""
        return sum(sums.n for sums in self._sums)

    @property
    def groups(self) -> int:
        """Number of groups of examples whose sums are kept apart."""
        return self._count

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, in the order of the first update."""
        return self._sums[0].form.names if self._sums else ()

    @property
    def cut(self) -> float:
        """Directions below `cut` eps of the largest are dropped; may be changed at any time."""
        return self._cut

    @cut.setter
    def cut(self, value: float) -> None:
        self._cut = value
        self._read.clear()

    @property
    def _eps(self) -> float:
        return self._cut * torch.finfo(self._forward).eps

    def merge(self, other: Self) -> None:
        """Add what another accumulator of the same layers has seen: exact, whatever its batches were.

        Raises
        ------
        MismatchError
            Its layers, pairs or groups are others.
        """
        if not other._sums:
            return
        if self._count != other._count:
            raise MismatchError(f"cannot merge {other._count} groups of examples into {self._count}")
        if not self._sums:
            self._start(other._sums[0].form, other._sums[0].shift)
        self._fitting(other._sums[0].form)
        for sums, more in zip(self._sums, other._sums, strict=True):
            sums.merge(more)
        self._seen += other._seen
        self._note_dtype(other._forward)
        self._read.clear()

    def without(self, group: int) -> Self:
        """The moments of all groups but one."""
        kept = [sums for index, sums in enumerate(self._sums) if index != group]
        if len(kept) in (0, len(self._sums)):
            raise UsageError(f"no group {group} to leave out of {self._count}; keep groups=10 from the start")
        return self._of(kept)

    def save(self, path: str | Path) -> None:
        """Write the sums as one safetensors file, atomically."""
        if not self._sums:
            raise UsageError("there is nothing to save before the first update")
        tensors: dict[str, Tensor] = {}
        for group, sums in enumerate(self._sums):
            sums.flush()
            tensors |= {f"{group}.{name}": tensor for name, tensor in sums.tensors().items()}
        note = {
            "sums": type(self).__name__, "form": self._sums[0].form.note(), "n": [sums.n for sums in self._sums],
            "groups": self._count, "seen": self._seen, "cut": self._cut,
            "dtype": str(self._forward).removeprefix("torch."), "fixed": self._fixed,
        }  # fmt: skip
        write_tensors(path, tensors, note)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read sums that `save` wrote; they can be updated and merged like new ones.

        Raises
        ------
        StoreError
            The file is damaged, or holds something else.
        """
        tensors, note = read_tensors(path)
        if note.get("sums") != cls.__name__:
            raise StoreError(f"{path} holds no {cls.__name__}; give a file that {cls.__name__}.save wrote")
        try:
            made = cls(dtype=getattr(torch, note["dtype"]), cut=note["cut"], groups=note["groups"])
            made._fixed, made._seen = note["fixed"], note["seen"]
            made._start(cls._form_of(note["form"]), tensors["0.shift"])
            for group, (sums, n) in enumerate(zip(made._sums, note["n"], strict=True)):
                sums.n, sums.shift = n, tensors[f"{group}.shift"].clone()
                for name, tensor in sums.tensors().items():
                    tensor.copy_(tensors[f"{group}.{name}"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise StoreError(f"{path} is damaged or from another version ({error!r}); make the sums again") from error
        return made

    def _add(self, layers: Mapping[str, Tensor], form: Any, group: Rows | None) -> None:
        """Add checked layers of equal length."""
        n = same_length(layers)
        if self._sums:
            self._fitting(form)
        belongs = self._belongs(n, group)
        if not n:
            return
        if not self._sums:
            means = [layer[:FIRST].double().mean(0).flatten() for layer in layers.values()]
            self._start(form, torch.cat(means))
        for index, sums in enumerate(self._sums):
            mine = belongs == index if belongs is not None else slice(None)
            sums.add([layer[mine] for layer in layers.values()])
        self._seen += n
        for layer in layers.values():
            self._note_dtype(layer.dtype)
        self._read.clear()

    def _fitting(self, form: Any) -> None:
        known = self._sums[0].form
        if form != known:
            raise MismatchError(f"sums of {known} cannot take {form}; start new ones")

    def _belongs(self, n: int, group: Rows | None) -> Tensor | None:
        """The group of each example: their turn comes round, so that an order by class spreads over all."""
        if self._count == 1:
            return None
        if group is None:
            return (self._seen + torch.arange(n)) % self._count
        chosen = torch.as_tensor(group)
        if chosen.shape != (n,) or (n and not 0 <= int(chosen.min()) <= int(chosen.max()) < self._count):
            raise UsageError(f"group is one number from 0 to {self._count - 1} for each of the {n} rows")
        return chosen

    def _start(self, form: Any, shift: Tensor) -> None:
        refuse_above(needed(form, self._count), self._max_bytes, f"the sums of {form}")
        self._sums = [self._make(form, shift) for _ in range(self._count)]

    def _of(self, parts: Sequence[Any]) -> Self:
        """New moments of these groups taken together."""
        made = type(self)(dtype=self._forward, cut=self._cut, max_bytes=self._max_bytes)
        total: Any = self._make(parts[0].form, parts[0].shift)
        for part in parts:
            total.merge(part)
        made._sums, made._seen = [total], total.n
        return made

    def _note_dtype(self, dtype: torch.dtype) -> None:
        """Activations of a coarser type than was said are as coarse as their type."""
        if not self._fixed and dtype.is_floating_point and torch.finfo(dtype).eps > torch.finfo(self._forward).eps:
            self._forward = dtype

    def _total(self) -> Any:
        """The sums of all groups."""
        if self.n < 2:
            raise UsageError(f"moments of {self.n} examples say nothing; update them with batches of examples first")
        if "total" not in self._read:
            total = self._sums[0] if len(self._sums) == 1 else self._of(self._sums)._sums[0]
            total.flush()
            self._read["total"] = total
        return self._read["total"]


def needed(form: Form, groups: int) -> int:
    """Bytes of the sums of so many groups, of all of them taken together, and of what is read from those."""
    return (groups + (groups > 1)) * form.bytes + form.bytes_read


def checked(name: str, values: Rows, dimensions: Sequence[str], hint: str) -> Tensor:
    """A layer's values on the CPU with these dimensions, finite; errors name the layer.

    Raises
    ------
    UsageError
        Another shape, complex numbers; NaN or infinity (NotFiniteError).
    """
    tensor = torch.as_tensor(values).detach().cpu()
    if tensor.ndim != len(dimensions) or 0 in tensor.shape[1:]:
        raise UsageError(f"{name} has the shape {list(tensor.shape)}, not [{', '.join(dimensions)}]; {hint}")
    if tensor.is_complex():
        raise UsageError(f"{name} is complex; similarity compares real activations")
    if tensor.numel() and tensor.is_floating_point():
        # The extremes tell in one pass without a copy.
        low, high = tensor.aminmax()
        if not (torch.isfinite(low) and torch.isfinite(high)):
            count = int((~tensor.isfinite()).sum())
            raise NotFiniteError(
                f"{name} has {count} values of {tensor.numel()} that are NaN or infinite; the model diverged or "
                "overflowed there: repair that, or leave the layer out"
            )
    return tensor


def same_length(layers: Mapping[str, Tensor]) -> int:
    """Number of examples, the same for all layers."""
    lengths = {name: len(layer) for name, layer in layers.items()}
    if len(set(lengths.values())) != 1:
        raise LoaderError(f"layers of one batch have different numbers of rows: {lengths}; give them the same examples")
    return next(iter(lengths.values()))

"""Second moments of layers, in one pass over any number of examples, from any number of workers."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from closerlook.errors import LayerError, LoaderError, MismatchError, StoreError, UsageError
from closerlook.files import read_tensors, write_tensors
from closerlook.similarity.memory import refuse_above
from closerlook.similarity.pair import Layer, Pair
from closerlook.similarity.sums import ROWS, Layout, Sums, moved, symmetric

Rows = Tensor | NDArray[Any]


class _Stream:
    """Sums of layers by name, in one or several groups of examples."""

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
        self._sums: list[Sums] = []
        self._seen = 0
        self._read: dict[Any, Any] = {}

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
        return self._sums[0].layout.names if self._sums else ()

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
            self._start(other._sums[0].layout, other._sums[0].shift)
        mine, theirs = self._sums[0].layout, other._sums[0].layout
        if mine != theirs:
            raise MismatchError(f"cannot merge sums of {_described(theirs)} into sums of {_described(mine)}")
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
        write_tensors(path, tensors, self._note())

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
        made = cls(dtype=getattr(torch, note["dtype"]), cut=note["cut"], groups=note["groups"])
        made._fixed, made._seen = note["fixed"], note["seen"]
        pairs = tuple((i, j) for i, j in note["pairs"])
        made._start(Layout(tuple(note["names"]), tuple(note["widths"]), pairs), tensors["0.shift"])
        for group, (sums, n) in enumerate(zip(made._sums, note["n"], strict=True)):
            sums.n, sums.shift = n, tensors[f"{group}.shift"].clone()
            for name, tensor in sums.tensors().items():
                tensor.copy_(tensors[f"{group}.{name}"])
        return made

    def _note(self) -> dict[str, Any]:
        layout = self._sums[0].layout
        return {
            "sums": type(self).__name__, "names": layout.names, "widths": layout.widths, "pairs": layout.pairs,
            "n": [sums.n for sums in self._sums], "groups": self._count, "seen": self._seen, "cut": self._cut,
            "dtype": str(self._forward).removeprefix("torch."), "fixed": self._fixed,
        }  # fmt: skip

    def _add(self, layers: Mapping[str, Rows], pairs: tuple[tuple[int, int], ...], group: Rows | None) -> None:
        rows = {name: checked(name, layer) for name, layer in layers.items()}
        n = _same_length(rows)
        layout = Layout(tuple(rows), tuple(layer.shape[1] for layer in rows.values()), pairs)
        if self._sums and layout != self._sums[0].layout:
            raise MismatchError(f"sums of {_described(self._sums[0].layout)} cannot take {_described(layout)}")
        belongs = self._belongs(n, group)
        if not n:
            return
        if not self._sums:
            self._start(layout, torch.cat([layer[:ROWS].double().mean(0) for layer in rows.values()]))
        for index, sums in enumerate(self._sums):
            mine = belongs == index if belongs is not None else slice(None)
            sums.add([layer[mine] for layer in rows.values()])
        self._seen += n
        for layer in rows.values():
            self._note_dtype(layer.dtype)
        self._read.clear()

    def _belongs(self, n: int, group: Rows | None) -> Tensor | None:
        """The group of each row: every example's turn comes round, so that an order by class spreads over all."""
        if self._count == 1:
            return None
        if group is None:
            return (self._seen + torch.arange(n)) % self._count
        chosen = torch.as_tensor(group)
        if chosen.shape != (n,) or (n and not (int(chosen.min()) >= 0 and int(chosen.max()) < self._count)):
            raise UsageError(f"group is one number from 0 to {self._count - 1} for each of the {n} rows")
        return chosen

    def _start(self, layout: Layout, shift: Tensor) -> None:
        decomposed = 8 * 3 * sum(width**2 for width in layout.widths)
        needed = (self._count + (self._count > 1)) * layout.bytes + decomposed
        refuse_above(needed, self._max_bytes, f"the sums of {len(layout.names)} layers ({sum(layout.widths)} units)")
        self._sums = [Sums(layout, shift) for _ in range(self._count)]

    def _of(self, sums: Sequence[Sums]) -> Self:
        """New moments of these groups taken together."""
        made = type(self)(dtype=self._forward, cut=self._cut, max_bytes=self._max_bytes)
        total = sums[0].copy()
        for more in sums[1:]:
            total.merge(more)
        made._sums, made._seen = [total], total.n
        return made

    def _note_dtype(self, dtype: torch.dtype) -> None:
        """Activations of a coarser type than was said are as coarse as their type."""
        if not self._fixed and dtype.is_floating_point and torch.finfo(dtype).eps > torch.finfo(self._forward).eps:
            self._forward = dtype

    def _total(self) -> Sums:
        if self.n < 2:
            raise UsageError(f"moments of {self.n} examples say nothing; update them with batches of rows first")
        if "total" not in self._read:
            self._read["total"] = self._sums[0] if len(self._sums) == 1 else self._of(self._sums)._sums[0]
            self._read["total"].flush()
            self._read["norms"] = moved(self._read["total"], -self._read["total"].thin[0] / self.n)[1]
        return self._read["total"]

    def _layer(self, index: int) -> Layer:
        total = self._total()
        if index not in self._read:
            columns = total.layout.slices[index]
            sums, own = total.thin[0, columns], symmetric(total.own[index])
            own.addr_(sums, sums, alpha=-1 / total.n)
            self._read[index] = Layer(
                total.layout.names[index], total.n, own, total.shift[columns] + sums / total.n,
                float(self._read["norms"][1 + index, 1 + index]), self._cut * torch.finfo(self._forward).eps,
            )  # fmt: skip
        return self._read[index]

    def _pair(self, i: int, j: int) -> Pair:
        total = self._total()
        if i == j:
            layer = self._layer(i)
            return Pair(layer, layer, layer.own, layer.squares)
        slices, sums = total.layout.slices, total.thin[0]
        cross = torch.addr(total.cross[i, j], sums[slices[i]], sums[slices[j]], alpha=-1 / total.n)
        return Pair(self._layer(i), self._layer(j), cross, float(self._read["norms"][1 + i, 1 + j]))


class Moments(_Stream):
    """Second moments of two representations x [n, p] and y [n, q] of the same n examples, in one pass.

    Every linear measure (`cca`, `svcca`, `pwcca`, `cka`, `procrustes`) is a function of them. Sums run in float64
    whatever the examples' dtype, are shifted by the first batch's mean, do not depend on the batches, and merge.

    Parameters
    ----------
    dtype : precision of the forward pass that made the examples: it decides which directions are rounding noise.
        Default float32, or that of the examples where it is coarser.
    cut : directions whose singular value at unit variance is below `cut` eps(dtype) of the largest are dropped.
    groups : keep the sums of that many groups of examples apart (10 for `jackknife`).
    max_bytes : refuse to allocate more; default 0.8 of the free memory.

    Raises
    ------
    UsageError
        NaN or infinite values (layer and count are named), a shape other than [n, p], or too little memory.
    MismatchError
        Batches that do not fit each other.

    Examples
    --------
    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    >>> moments = Moments()
    >>> for part in x.split(64):
    ...     moments.update(part, part @ torch.tensor([[1.0, 2], [0, 1], [1, 1]]))
    >>> moments.n
    200
    """

    def update(self, x: Rows, y: Rows, group: Rows | None = None) -> None:
        """Add a batch; `group` [n] numbers the group of each row (default: in turn)."""
        self._add({"x": x, "y": y}, ((0, 1),), group)

    def pair(self) -> Pair:
        """The centred moments of both sides."""
        if "pair" not in self._read:
            self._read["pair"] = self._pair(0, 1)
        return self._read["pair"]


class GridMoments(_Stream):
    """Second moments of many layers by name, and of chosen pairs of them; each layer is decomposed once.

    Parameters
    ----------
    pairs : pairs of names whose products are kept; default all.
    dtype, cut, groups, max_bytes : as for `Moments`.

    Examples
    --------
    >>> x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    >>> grid = GridMoments(pairs=[("a.1", "b.1"), ("a.2", "b.1")])
    >>> grid.update({"a.1": x, "a.2": x[:, :2] - 1, "b.1": x[:, 1:]})
    >>> grid.names, grid.pair("b.1", "a.2").cross.shape
    (('a.1', 'a.2', 'b.1'), torch.Size([3, 2]))
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._chosen = None if pairs is None else tuple(pairs)

    def update(self, layers: Mapping[str, Rows], group: Rows | None = None) -> None:
        """Add a batch: rows [n, p] per layer; `group` [n] numbers the group of each row (default: in turn)."""
        if self._sums:
            known = self._sums[0].layout
            ordered = {name: layers[name] for name in known.names if name in layers} | dict(layers)
            return self._add(ordered, known.pairs, group)
        names = list(layers)
        chosen = self._chosen if self._chosen is not None else tuple(combinations(names, 2))
        unknown = sorted({name for pair in chosen for name in pair} - set(names))
        if unknown:
            raise LayerError(f"pairs name {', '.join(unknown)}, the batch has {', '.join(names)}")
        indices = {(names.index(a), names.index(b)) for a, b in chosen if a != b}
        return self._add(layers, tuple(sorted({(min(pair), max(pair)) for pair in indices})), group)

    def pair(self, a: str, b: str) -> Pair:
        """The centred moments of two layers, a as x and b as y.

        Raises
        ------
        LayerError
            No such layer, or the pair was not chosen.
        """
        layout = self._total().layout
        unknown = [name for name in (a, b) if name not in layout.names]
        if unknown:
            raise LayerError(f"no layer {unknown[0]!r}; there are {', '.join(layout.names)}")
        i, j = layout.names.index(a), layout.names.index(b)
        if i != j and (min(i, j), max(i, j)) not in layout.pairs:
            raise LayerError(f"the products of {a} and {b} were not kept; name the pair in pairs=")
        return self._pair(i, j) if i <= j else self._pair(j, i).swapped


def checked(name: str, rows: Rows) -> Tensor:
    """Rows of a layer as a matrix on the CPU, finite; errors name the layer."""
    matrix = torch.as_tensor(rows).detach().cpu()
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise UsageError(
            f"{name} has the shape {list(matrix.shape)}, not [examples, units]; average maps over space, flatten them, "
            "or use SpectralMoments"
        )
    if matrix.is_complex():
        raise UsageError(f"{name} is complex; similarity compares real activations")
    refuse_not_finite(name, matrix)
    return matrix


def refuse_not_finite(name: str, values: Tensor) -> None:
    """Raise when there is NaN or infinity; the extremes tell in one pass without a copy."""
    if values.numel() and values.is_floating_point():
        low, high = values.aminmax()
        if not (torch.isfinite(low) and torch.isfinite(high)):
            count = int((~values.isfinite()).sum())
            raise UsageError(
                f"{name} has {count} values of {values.numel()} that are NaN or infinite; the model diverged or "
                "overflowed there: repair that, or leave the layer out"
            )


def _same_length(rows: Mapping[str, Tensor]) -> int:
    lengths = {name: len(layer) for name, layer in rows.items()}
    if len(set(lengths.values())) != 1:
        raise LoaderError(f"layers of one batch have different numbers of rows: {lengths}; give them the same examples")
    return next(iter(lengths.values()))


def _described(layout: Layout) -> str:
    shapes = ", ".join(f"{name} [{width}]" for name, width in zip(layout.names, layout.widths, strict=True))
    return f"{shapes} in {len(layout.pairs)} pairs"

"""Second moments of layers, in one pass over any number of examples, from any number of workers."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from closerlook.errors import LayerError
from closerlook.similarity.pair import Layer, Pair
from closerlook.similarity.stream import Rows, Stream, checked
from closerlook.similarity.sums import Layout, Sums, moved, symmetric

HINT = "average maps over space, flatten them, or use SpectralMoments"


class _Matrices(Stream):
    """Sums of layers that are matrices [examples, units]."""

    @staticmethod
    def _make(form: Layout, shift: Tensor) -> Sums:
        return Sums(form, shift)

    @staticmethod
    def _form_of(note: Mapping[str, Any]) -> Layout:
        return Layout.of_note(note)

    def _add_rows(self, layers: Mapping[str, Rows], pairs: tuple[tuple[int, int], ...], group: Rows | None) -> None:
        rows = {name: checked(name, layer, ("examples", "units"), HINT) for name, layer in layers.items()}
        self._add(rows, Layout(tuple(rows), tuple(layer.shape[1] for layer in rows.values()), pairs), group)

    def _norms(self) -> Tensor:
        """``w'w`` of the centred examples."""
        if "norms" not in self._read:
            total = self._total()
            self._read["norms"] = moved(total, -total.thin[0] / total.n)[1]
        return self._read["norms"]

    def _layer(self, index: int) -> Layer:
        if index not in self._read:
            total = self._total()
            columns, n = total.form.slices[index], total.n
            sums, own = total.thin[0, columns], symmetric(total.own[index])
            own.addr_(sums, sums, alpha=-1 / n)
            mean = total.shift[columns] + sums / n
            self._read[index] = Layer(
                total.form.names[index], n, own, mean, float(self._norms()[1 + index, 1 + index]),
                floor=self._eps * (own.diagonal() + n * mean.square()).clamp_min(0).sqrt(), eps=self._eps,
            )  # fmt: skip
        return self._read[index]

    def _pair(self, i: int, j: int) -> Pair:
        total = self._total()
        if i == j:
            layer = self._layer(i)
            return Pair(layer, layer, layer.own, layer.squares)
        slices, sums = total.form.slices, total.thin[0]
        cross = torch.addr(total.cross[i, j], sums[slices[i]], sums[slices[j]], alpha=-1 / total.n)
        return Pair(self._layer(i), self._layer(j), cross, float(self._norms()[1 + i, 1 + j]))


class Moments(_Matrices):
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
        self._add_rows({"x": x, "y": y}, ((0, 1),), group)

    def pair(self) -> Pair:
        """The centred moments of both sides."""
        if "pair" not in self._read:
            self._read["pair"] = self._pair(0, 1)
        return self._read["pair"]


class GridMoments(_Matrices):
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
            known = self._sums[0].form
            ordered = {name: layers[name] for name in known.names if name in layers} | dict(layers)
            return self._add_rows(ordered, known.pairs, group)
        names = list(layers)
        chosen = self._chosen if self._chosen is not None else tuple(combinations(names, 2))
        unknown = sorted({name for pair in chosen for name in pair} - set(names))
        if unknown:
            raise LayerError(f"pairs name {', '.join(unknown)}, the batch has {', '.join(names)}")
        indices = {(names.index(a), names.index(b)) for a, b in chosen if a != b}
        return self._add_rows(layers, tuple(sorted({(min(pair), max(pair)) for pair in indices})), group)

    def pair(self, a: str, b: str) -> Pair:
        """The centred moments of two layers, a as x and b as y.

        Raises
        ------
        LayerError
            No such layer, or the pair was not chosen.
        """
        form = self._total().form
        unknown = [name for name in (a, b) if name not in form.names]
        if unknown:
            raise LayerError(f"no layer {unknown[0]!r}; there are {', '.join(form.names)}")
        i, j = form.names.index(a), form.names.index(b)
        if i != j and (min(i, j), max(i, j)) not in form.pairs:
            raise LayerError(f"the products of {a} and {b} were not kept; name the pair in pairs=")
        return self._pair(i, j) if i <= j else self._pair(j, i).swapped

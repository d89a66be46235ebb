"""The sums of all layers of A, of all layers of B, and of their pairs, in one pass."""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from closerlook.activations import Handling, Layer
from closerlook.similarity.moments import GridMoments
from closerlook.similarity.pair import Pair
from closerlook.similarity.sides import Side, side_of
from closerlook.similarity.stream import needed
from closerlook.similarity.sums import Layout

Places = tuple[int, ...]
Rows = Mapping[str, Tensor]


class Grids:
    """One grid of moments for all layers that have a row per example, and one for each size of map read by positions.

    Layers of different sizes have other numbers of rows, so that nothing pairs them.
    """

    def __init__(
        self,
        layers_a: Sequence[Layer],
        layers_b: Sequence[Layer],
        handling: Handling,
        *,
        groups: int = 1,
        cut: float = 1.0,
        max_bytes: int | None = None,
    ) -> None:
        self._places = {
            f"{side} {layer.name}": handling.positions(layer.shape)
            for side, layers in (("A", layers_a), ("B", layers_b))
            for layer in layers
        }
        self._widths = {
            f"{side} {layer.name}": handling.units(layer.shape)
            for side, layers in (("A", layers_a), ("B", layers_b))
            for layer in layers
        }
        doubles = all(layer.dtype == torch.float64 for layer in (*layers_a, *layers_b))
        self._grids = {
            places: GridMoments(
                self._pairs(places),
                dtype=torch.float64 if doubles else None, groups=groups, cut=cut, max_bytes=max_bytes,
            )
            for places in dict.fromkeys(self._places.values())
        }  # fmt: skip
        self.groups, self.n = groups, 0

    @property
    def bytes(self) -> int:
        """What the sums take, and what is read from them."""
        return sum(needed(self._form(places), self.groups) for places in self._grids)

    def __str__(self) -> str:
        widest = max(self._widths, key=self._widths.__getitem__)
        return f"{len(self._widths)} layers (the widest: {widest}, {self._widths[widest]:,} units)"

    def update(self, rows_a: Rows, rows_b: Rows, n: int) -> None:
        """Add the rows of n examples; all rows of one example belong to one group."""
        rows = {f"A {name}": value for name, value in rows_a.items()}
        rows |= {f"B {name}": value for name, value in rows_b.items()}
        group = (self.n + torch.arange(n)) % self.groups
        for places, grid in self._grids.items():
            each = group.repeat_interleave(prod(places))
            grid.update({name: rows[name] for name in self._at(places)}, each if self.groups > 1 else None)
        self.n += n

    def pair(self, a: str, b: str) -> Pair | None:
        """A's layer and B's layer; None where their rows are other places."""
        a, b = f"A {a}", f"B {b}"
        places = self._places[a]
        return self._grids[places].pair(a, b) if places == self._places[b] else None

    def side(self, side: str, layer: str) -> Side:
        """What is known of a layer alone."""
        name = f"{side} {layer}"
        return side_of(layer, [self._grids[self._places[name]].pair(name, name).left])

    def without(self, group: int) -> "Grids":
        """The sums of all examples but those of one group."""
        made = Grids.__new__(Grids)
        made._places, made.groups, made.n = self._places, 1, self.n
        made._grids = {places: grid.without(group) for places, grid in self._grids.items()}
        return made

    def _pairs(self, places: Places) -> list[tuple[str, str]]:
        names = self._at(places)
        return [(a, b) for a in names for b in names if a.startswith("A ") and b.startswith("B ")]

    def _form(self, places: Places) -> Layout:
        names = self._at(places)
        pairs = tuple((names.index(a), names.index(b)) for a, b in self._pairs(places))
        return Layout(tuple(names), tuple(self._widths[name] for name in names), pairs)

    def _at(self, places: Places) -> list[str]:
        return [name for name, here in self._places.items() if here == places]

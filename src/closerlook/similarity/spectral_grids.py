"""Sums per spatial frequency for every pair of a layer of A and a layer of B."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from closerlook.activations import Layer
from closerlook.similarity.sides import Side, side_of
from closerlook.similarity.spectral import DIMENSIONS, HINT, MapForm, SpectralMoments
from closerlook.similarity.stream import checked, needed

Rows = Mapping[str, Tensor]
Shape = tuple[int, int, int]


class SpectralGrids:
    """One accumulator per pair; a layer that is no map counts as a map of one place, which has one frequency."""

    def __init__(
        self,
        layers_a: Sequence[Layer],
        layers_b: Sequence[Layer],
        *,
        groups: int = 1,
        cut: float = 1.0,
        max_bytes: int | None = None,
    ) -> None:
        doubles = all(layer.dtype == torch.float64 for layer in (*layers_a, *layers_b))
        pairs = [(a, b) for a in layers_a for b in layers_b]
        self._forms = [MapForm(_shape(a), _shape(b)) for a, b in pairs]
        self._moments = {
            (a.name, b.name): SpectralMoments(
                dtype=torch.float64 if doubles else None, groups=groups, cut=cut, max_bytes=max_bytes
            )
            for a, b in pairs
        }
        self.groups, self.n = groups, 0

    @property
    def bytes(self) -> int:
        """What the sums take, and what is read from them: the latter of one pair at a time."""
        largest = max(form.bytes_read for form in self._forms)
        return sum(needed(form, self.groups) - form.bytes_read for form in self._forms) + largest

    def __str__(self) -> str:
        return f"{len(self._forms)} pairs of layers at each spatial frequency"

    def update(self, rows_a: Rows, rows_b: Rows, n: int) -> None:
        """Add the maps of n examples."""
        for side, rows in (("A", rows_a), ("B", rows_b)):
            for name, each in rows.items():
                checked(f"{side} {name}", _maps(each), DIMENSIONS, HINT)  # the moments know them as x and y
        group = (self.n + torch.arange(n)) % self.groups
        for (a, b), moments in self._moments.items():
            moments.update(_maps(rows_a[a]), _maps(rows_b[b]), group if self.groups > 1 else None)
        self.n += n

    def pair(self, a: str, b: str) -> SpectralMoments:
        """A's layer and B's layer."""
        return self._moments[a, b]

    def side(self, side: str, layer: str) -> Side:
        """What is known of a layer alone: of all its frequencies the largest rank and condition."""
        moments = next(found for (a, b), found in self._moments.items() if layer == (a if side == "A" else b))
        return side_of(layer, [pair.left if side == "A" else pair.right for pair in moments.pairs()])

    def without(self, group: int) -> "SpectralGrids":
        """The sums of all examples but those of one group."""
        made = SpectralGrids.__new__(SpectralGrids)
        made.groups, made.n = 1, self.n
        made._moments = {names: moments.without(group) for names, moments in self._moments.items()}
        return made


def _shape(layer: Layer) -> Shape:
    if len(layer.shape) == 4:
        return layer.shape[1], layer.shape[2], layer.shape[3]
    return layer.shape[-1] if len(layer.shape) > 1 else 1, 1, 1


def _maps(rows: Tensor) -> Tensor:
    return rows if rows.ndim == 4 else rows[:, :, None, None]

"""The spatial Fourier transform of maps as two matrix products, in the order in which sums per frequency need it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class Frequencies:
    """The spatial frequencies that two sizes of map have in common, one of each conjugate pair.

    Real maps have conjugate values at (u, v) and (-u, -v): one is kept with weight 2; those that are their own
    conjugate have weight 1. Maps of different size share the frequencies below the smaller one's Nyquist frequency,
    which is left out: there the smaller map cannot tell u from -u and the larger one can. `rows` and `columns` are the
    sizes that are compared along each axis.
    """

    rows: Size
    columns: Size

    @cached_property
    def edge(self) -> tuple[list[int], list[int]]:
        """Columns v that are their own conjugate, and their rows u: half of them."""
        most_u, most_v = _highest(*self.rows), _highest(*self.columns)
        ends = {0, most_v} if _has_nyquist(*self.columns) else {0}
        return sorted(ends), list(range(most_u + 1))

    @cached_property
    def inner(self) -> tuple[list[int], list[int]]:
        """The other columns v, and their rows u: all of them."""
        most = _highest(*self.rows)
        negative = range(-most + _has_nyquist(*self.rows), 0)
        ends = self.edge[0]
        return [v for v in range(_highest(*self.columns) + 1) if v not in ends], [*range(most + 1), *negative]

    @cached_property
    def numbers(self) -> tuple[tuple[int, int], ...]:
        """(u, v) of each frequency, in the order of the sums; the first is (0, 0)."""
        return tuple((u, v) for columns, rows in (self.edge, self.inner) for v in columns for u in rows)

    @cached_property
    def weights(self) -> Tensor:
        """How many frequencies of the whole spectrum each stands for."""
        alone = [self._is_own_conjugate(u, v) for u, v in self.numbers]
        return torch.tensor([1.0 if own else 2.0 for own in alone], dtype=torch.float64)

    def _is_own_conjugate(self, u: int, v: int) -> bool:
        return v in self.edge[0] and (u == 0 or (_has_nyquist(*self.rows) and u == _highest(*self.rows)))


class Transform:
    """The transform of maps [m, c, h, w] at chosen frequencies, over h w: (0, 0) is the mean over space.

    For up to `most` = m c maps at a time, in buffers that are used again: the result lasts until the next call.
    """

    def __init__(self, size: Size, frequencies: Frequencies, most: int) -> None:
        height, width = size
        highest = _highest(*frequencies.columns)
        cos, sin = _waves(range(highest + 1), width)
        self._first = torch.stack([cos, -sin], 1).reshape(-1, width)
        self._parts = []
        for columns, rows in (frequencies.edge, frequencies.inner):
            if not columns:
                continue
            cos, sin = _waves(rows, height)
            # (re, im) of the result from (re, im) of the first pass: multiplication by cos - i sin
            second = torch.stack([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)], 1).reshape(-1, 2 * height)
            step = (columns[1] - columns[0]) if len(columns) > 1 else 1
            self._parts.append((slice(columns[0], columns[-1] + 1, step), second))
        self._count = len(frequencies.numbers)
        self._half = torch.empty(len(self._first) * height * most, dtype=torch.float64)
        self._made = torch.empty(self._count * 2 * most, dtype=torch.float64)

    def __call__(self, maps: Tensor) -> Tensor:
        """Real and imaginary parts [frequencies, 2, m, c] of float64 maps."""
        m, c, height, width = maps.shape
        flat = maps.reshape(m * c, height, width)
        half = self._half[: len(self._first) * height * m * c].view(-1, height, m * c)
        for y in range(height):
            half[:, y].addmm_(self._first, flat[:, y].T, beta=0)
        half = half.view(-1, 2 * height, m * c)
        made = self._made[: self._count * 2 * m * c].view(self._count, 2, m, c)
        start = 0
        for columns, second in self._parts:
            part = half[columns]
            end = start + len(part) * len(second) // 2
            torch.bmm(second.expand(len(part), *second.shape), part, out=made[start:end].view(len(part), -1, m * c))
            start = end
        return made


def _highest(a: int, b: int) -> int:
    """Highest frequency that axes of a and of b places share."""
    return a // 2 if a == b else (min(a, b) - 1) // 2


def _has_nyquist(a: int, b: int) -> bool:
    """Whether the highest shared frequency is its own conjugate."""
    return a == b and a % 2 == 0


def _waves(numbers: range | list[int], size: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [numbers, size] over the size; the phases are reduced exactly."""
    phase = np.outer(np.array(numbers, dtype=np.int64), np.arange(size)) % size * (2 * np.pi / size)
    return torch.from_numpy(np.cos(phase) / size), torch.from_numpy(np.sin(phase) / size)

"""Sums over examples from which every linear measure follows: linear in the examples, so they stream and merge.

Layers stand side by side in one buffer z of shifted float64 rows. With a_l the squared norm of layer l's part of a
row and w = [1, a_1, ..., a_L], the sums are z'z (own and cross blocks), w'z and w'w: the latter two are all that
debiasing needs (Song et al. 2012, JMLR 13, 1393), without a Gram matrix.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

ROWS = 512  # of the buffer: long enough for the products, short enough for the cache
STRIP = 64  # columns of an own block that are computed at once; what lies below the diagonal is left out
PAD = 8  # a row length that is a power of two makes rows collide in the cache

Pair = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Names and widths of the layers side by side, and the pairs (i, j), i < j, whose products are kept."""

    names: tuple[str, ...]
    widths: tuple[int, ...]
    pairs: tuple[Pair, ...]

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Columns of each layer."""
        ends = torch.tensor(self.widths).cumsum(0).tolist()
        return tuple(slice(end - width, end) for end, width in zip(ends, self.widths, strict=True))

    @cached_property
    def runs(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Per layer the partners that lie side by side: each run is one product."""
        runs: list[tuple[int, list[int]]] = []
        for i, j in sorted(self.pairs):
            if runs and runs[-1][0] == i and runs[-1][1][-1] == j - 1:
                runs[-1][1].append(j)
            else:
                runs.append((i, [j]))
        return tuple((i, tuple(partners)) for i, partners in runs)

    def columns(self, partners: Sequence[int]) -> slice:
        """Columns of a run of partners."""
        return slice(self.slices[partners[0]].start, self.slices[partners[-1]].stop)

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} [{width}]" for name, width in zip(self.names, self.widths, strict=True))
        return f"{shapes} in {len(self.pairs)} pairs"

    def note(self) -> dict[str, Any]:
        """The layout as JSON."""
        return {"names": self.names, "widths": self.widths, "pairs": self.pairs}

    @classmethod
    def of_note(cls, note: Mapping[str, Any]) -> "Layout":
        """The layout that a note describes."""
        return cls(tuple(note["names"]), tuple(note["widths"]), tuple((i, j) for i, j in note["pairs"]))

    @property
    def bytes_read(self) -> int:
        """What the decompositions of all layers take."""
        return 8 * 3 * sum(width**2 for width in self.widths)

    @property
    def bytes(self) -> int:
        """What one set of sums takes, its buffer included."""
        own = sum(width**2 for width in self.widths)
        cross = sum(self.widths[i] * self.widths[j] for i, j in self.pairs)
        layers, total = len(self.widths), sum(self.widths)
        return 8 * (own + cross + (layers + 2) * total + ROWS * (total + PAD + layers + 1))


class Sums:
    """The sums of one stream of examples; `shift` was subtracted from every row.

    `own` are z'z of one layer each (upper triangles count), `cross` of two; `thin` is w'z [1 + L, P], `norms` w'w.
    """

    def __init__(self, form: Layout, shift: Tensor) -> None:
        layers, total = len(form.widths), sum(form.widths)
        self.form, self.shift, self.n = form, shift, 0
        self.own = [_zeros(width, width) for width in form.widths]
        self.thin, self.norms = _zeros(1 + layers, total), _zeros(1 + layers, 1 + layers)
        self.cross: dict[Pair, Tensor] = {}
        self._runs = []
        for i, partners in form.runs:
            run = _zeros(form.widths[i], sum(form.widths[j] for j in partners))
            self._runs.append(run)
            blocks = run.split([form.widths[j] for j in partners], 1)
            self.cross |= {(i, j): block for j, block in zip(partners, blocks, strict=True)}
        self._z = torch.empty(ROWS, total + PAD, dtype=torch.float64)[:, :total]
        self._w = torch.ones(ROWS, 1 + layers, dtype=torch.float64)
        self._filled = 0

    def add(self, layers: Sequence[Tensor]) -> None:
        """Add rows: one matrix [rows, width] per layer, finite."""
        start, rows = 0, len(layers[0])
        while start < rows:
            count = min(rows - start, ROWS - self._filled)
            here = slice(self._filled, self._filled + count)
            for columns, layer in zip(self.form.slices, layers, strict=True):
                part = self._z[here, columns]
                part.copy_(layer[start : start + count])
                part -= self.shift[columns]
            start, self._filled = start + count, self._filled + count
            if self._filled == ROWS:
                self.flush()
        self.n += rows

    def flush(self) -> None:
        """Bring the rows that wait in the buffer into the sums."""
        z, w = self._z[: self._filled], self._w[: self._filled]
        if not self._filled:
            return
        for index, columns in enumerate(self.form.slices):
            part = z[:, columns]
            w[:, 1 + index] = torch.linalg.vector_norm(part, dim=1).square_()
            add_upper(self.own[index], part)
        for run, (i, partners) in zip(self._runs, self.form.runs, strict=True):
            run.addmm_(z[:, self.form.slices[i]].T, z[:, self.form.columns(partners)])
        self.thin.addmm_(w.T, z)
        self.norms.addmm_(w.T, w)
        self._filled = 0

    def merge(self, other: "Sums") -> None:
        """Add the sums of other examples, whatever their shift: exact up to rounding."""
        self.flush()
        other.flush()
        move = other.shift - self.shift
        thin, norms = moved(other, move) if move.any() else (other.thin, other.norms)
        for i, block in enumerate(self.own):
            block += other.own[i]
            self._add_move(block, other, move, i, i)
        for (i, j), block in self.cross.items():
            block += other.cross[i, j]
            self._add_move(block, other, move, i, j)
        self.thin += thin
        self.norms += norms
        self.n += other.n

    def _add_move(self, block: Tensor, other: "Sums", move: Tensor, i: int, j: int) -> None:
        """Add sum (x + d)(y + e)' - sum x y' over the other's rows, with [d, e] the move."""
        left, right = self.form.slices[i], self.form.slices[j]
        if move[left].any() or move[right].any():
            weighted = other.thin[0, left] + other.n * move[left]
            block.addmm_(torch.stack([weighted, move[left]], 1), torch.stack([move[right], other.thin[0, right]]))

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name, as they are, to be stored or filled."""
        own = {f"own.{i}": block for i, block in enumerate(self.own)}
        cross = {f"cross.{i}.{j}": block for (i, j), block in self.cross.items()}
        return {"shift": self.shift, "thin": self.thin, "norms": self.norms} | own | cross


def moved(sums: Sums, move: Tensor) -> tuple[Tensor, Tensor]:
    """``w'z`` and ``w'w`` as they would be had `move` been added to every row z.

    With d the move, a' = a + 2 z'd + d'd, so that both follow from the sums. The entries of two layers whose
    product is not kept cannot be known and are left out.
    """
    layers = range(len(sums.form.widths))
    slices, n = sums.form.slices, sums.n
    d = [move[columns] for columns in slices]
    s = [sums.thin[0, columns] for columns in slices]
    q = [float(part @ part) for part in d]
    thin, norms = torch.zeros_like(sums.thin), torch.zeros_like(sums.norms)
    thin[0] = sums.thin[0] + n * move
    norms[0, 0] = sums.norms[0, 0]
    for i in layers:
        norms[0, 1 + i] = norms[1 + i, 0] = sums.norms[0, 1 + i] + 2 * s[i] @ d[i] + n * q[i]
    for i, j, block in _blocks(sums):
        a, ay = sums.norms[0, 1 + i], sums.thin[1 + i, slices[j]]
        b, bx = sums.norms[0, 1 + j], sums.thin[1 + j, slices[i]]
        de, sy = block.T @ d[i], s[i] @ d[i]
        thin[1 + i, slices[j]] = ay + a * d[j] + 2 * de + 2 * sy * d[j] + q[i] * (s[j] + n * d[j])
        ed, sx = block @ d[j], s[j] @ d[j]
        thin[1 + j, slices[i]] = bx + b * d[i] + 2 * ed + 2 * sx * d[i] + q[j] * (s[i] + n * d[i])
        both = sums.norms[1 + i, 1 + j] + 2 * (ay @ d[j] + bx @ d[i]) + q[j] * a + q[i] * b + 4 * de @ d[j]
        norms[1 + i, 1 + j] = norms[1 + j, 1 + i] = both + 2 * (q[j] * sy + q[i] * sx) + n * q[i] * q[j]
    return thin, norms


def add_upper(block: Tensor, z: Tensor) -> None:
    """Add z'z to the upper triangle of a block: about half of the work of the full product."""
    width = z.shape[1]
    for start in range(0, width, STRIP):
        block[start : start + STRIP, start:].addmm_(z[:, start : start + STRIP].T, z[:, start:])


def symmetric(upper: Tensor) -> Tensor:
    """The symmetric matrix of which `add_upper` made the upper triangle; strip by strip, since that fits the cache."""
    whole = upper.clone()
    for start in range(0, len(whole), STRIP):
        end = start + STRIP
        whole[end:, start:end] = whole[start:end, end:].T
    return whole


def _blocks(sums: Sums) -> Iterator[tuple[int, int, Tensor]]:
    """Own and cross blocks, one at a time."""
    for i, upper in enumerate(sums.own):
        yield i, i, symmetric(upper)
    for (i, j), block in sums.cross.items():
        yield i, j, block


def _zeros(rows: int, columns: int) -> Tensor:
    return torch.zeros(rows, columns, dtype=torch.float64)

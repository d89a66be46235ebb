"""Sums over images of products of channels at every spatial frequency."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from closerlook.similarity.dft import Frequencies, Transform

CHUNK_BYTES = 2**23  # of float64 maps that are transformed at once


@dataclass(frozen=True)
class MapForm:
    """Shapes (c, h, w) of the maps x and y."""

    x: tuple[int, int, int]
    y: tuple[int, int, int]

    names = ("x", "y")

    def __str__(self) -> str:
        return f"maps x {list(self.x)} and y {list(self.y)} at {len(self.frequencies.numbers)} spatial frequencies"

    def note(self) -> dict[str, Any]:
        """The form as JSON."""
        return {"x": self.x, "y": self.y}

    @property
    def frequencies(self) -> Frequencies:
        """The spatial frequencies of both."""
        return Frequencies((self.x[1], self.y[1]), (self.x[2], self.y[2]))

    @property
    def channels(self) -> tuple[int, int]:
        """Channels of both sides."""
        return self.x[0], self.y[0]

    @property
    def rows(self) -> int:
        """Images that wait to be transformed together."""
        return max(8, min(128, CHUNK_BYTES // (8 * max(prod(self.x), prod(self.y)))))

    @property
    def bytes(self) -> int:
        """What one set of sums takes, with what it needs to transform a chunk of maps."""
        p, q = self.channels
        products, maps = p * p + q * q + p * q, prod(self.x) + prod(self.y)
        return 8 * (2 * len(self.frequencies.numbers) * products + 4 * self.rows * maps)

    @property
    def bytes_read(self) -> int:
        """What the complex covariances take."""
        p, q = self.channels
        return 16 * len(self.frequencies.numbers) * (p * p + q * q + p * q)


class SpectralSums:
    """Sums of products at every frequency, in real arithmetic: with z = a + ib, ``z^H z = a'a + b'b + i(a'b - b'a)``.

    `own` are (a'a + b'b, a'b) [F, c, c] of each side, `cross` the real and imaginary part of ``x^H y`` [F, c, d];
    `thin` are the sums of a and b [F, 2, c] of each side.
    """

    def __init__(self, form: MapForm, shift: Tensor) -> None:
        self.form, self.shift, self.n = form, shift, 0
        self.frequencies = form.frequencies
        (p, q), f = form.channels, len(self.frequencies.numbers)
        self.own = [_zeros(2, f, width, width) for width in (p, q)]
        self.cross = _zeros(2, f, p, q)
        self.thin = [_zeros(f, 2, width) for width in (p, q)]
        self._transforms = [Transform(shape[1:], self.frequencies, shape[0] * form.rows) for shape in (form.x, form.y)]
        self._waiting = [torch.empty(form.rows, *shape, dtype=torch.float64) for shape in (form.x, form.y)]
        self._filled = 0

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name, to be stored or filled."""
        sides = {f"{name}.{i}": part[i] for name, part in (("own", self.own), ("thin", self.thin)) for i in (0, 1)}
        return {"shift": self.shift, "cross": self.cross} | sides

    def add(self, layers: Sequence[Tensor]) -> None:
        """Add images: maps [m, c, h, w] of both sides, finite."""
        start, rows = 0, len(layers[0])
        while start < rows:
            count = min(rows - start, self.form.rows - self._filled)
            here = slice(self._filled, self._filled + count)
            for waiting, layer, shift in zip(self._waiting, layers, self._shifts(), strict=True):
                waiting[here].copy_(layer[start : start + count])
                waiting[here] -= shift
            start, self._filled = start + count, self._filled + count
            if self._filled == self.form.rows:
                self.flush()
        self.n += rows

    def flush(self) -> None:
        """Transform the images that wait, and bring them into the sums."""
        if not self._filled:
            return
        x, y = (
            transform(waiting[: self._filled])
            for transform, waiting in zip(self._transforms, self._waiting, strict=True)
        )
        self._filled = 0
        for (real, mixed), thin, z in zip(self.own, self.thin, (x, y), strict=True):
            real.baddbmm_(z.flatten(1, 2).mT, z.flatten(1, 2))
            mixed.baddbmm_(z[:, 0].mT, z[:, 1])
            thin += z.sum(2)
        real, imaginary = self.cross
        real.baddbmm_(x.flatten(1, 2).mT, y.flatten(1, 2))
        imaginary.baddbmm_(x[:, 0].mT, y[:, 1]).baddbmm_(x[:, 1].mT, y[:, 0], alpha=-1)

    def merge(self, other: "SpectralSums") -> None:
        """Add the sums of other images, whatever their shift."""
        self.flush()
        other.flush()
        moves = [
            transform((theirs - ours)[None])[:, :, 0].clone()
            for transform, theirs, ours in zip(self._transforms, other._shifts(), self._shifts(), strict=True)
        ]
        for own, more, thin, move in zip(self.own, other.own, other.thin, moves, strict=True):
            moved = _moved(thin, move, thin, move, other.n)
            own += more
            own[0] += moved.real
            own[1] += moved.imag / 2  # only its antisymmetric part is read
        self.cross += other.cross
        moved = _moved(other.thin[0], moves[0], other.thin[1], moves[1], other.n)
        self.cross[0] += moved.real
        self.cross[1] += moved.imag
        for thin, more, move in zip(self.thin, other.thin, moves, strict=True):
            thin += more + other.n * move
        self.n += other.n

    def centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """Complex centred ``x^H x`` [F, c, c], ``y^H y`` [F, d, d] and ``x^H y`` [F, c, d]."""
        x, y = (_complex(thin) for thin in self.thin)
        own_x, own_y = (torch.complex(real, mixed - mixed.mT) for real, mixed in self.own)
        cross = torch.complex(*self.cross)
        for block, a, b in ((own_x, x, x), (own_y, y, y), (cross, x, y)):
            block.baddbmm_(a.conj()[:, :, None], b[:, None], alpha=-1 / self.n)
        return own_x, own_y, cross

    def means(self) -> list[Tensor]:
        """Complex mean [F, c] of each side's maps."""
        sides = zip(self._transforms, self._shifts(), self.thin, strict=True)
        return [_complex(transform(shift[None])[:, :, 0] + thin / self.n) for transform, shift, thin in sides]

    def _shifts(self) -> tuple[Tensor, Tensor]:
        x, y = self.shift.split([prod(self.form.x), prod(self.form.y)])
        return x.view(self.form.x), y.view(self.form.y)


def _complex(parts: Tensor) -> Tensor:
    """Complex numbers [F, c] from their parts [F, 2, c]."""
    return torch.complex(parts[:, 0], parts[:, 1])


def _moved(s: Tensor, d: Tensor, t: Tensor, e: Tensor, n: int) -> Tensor:
    """``sum (x + d)^H (y + e) - sum x^H y`` [F, p, q], where s and t [F, 2, p] are the sums of x and of y."""
    s, d, t, e = (_complex(part) for part in (s, d, t, e))
    return torch.stack([s + n * d, d], 2).conj() @ torch.stack([e, t], 1)


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)

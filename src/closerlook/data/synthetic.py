"""Drawn images that a small network learns in a few steps: for tests and for trying things out."""

from pathlib import Path

import torch
from torch import Tensor

from closerlook.data.seeds import generator
from closerlook.data.source import Pair, Source
from closerlook.errors import UsageError

CLASSES = 10
TRAIN, TEST = 2000, 500


def synthetic(resolution: int | None = None, data_dir: str | Path | None = None) -> Source:
    """Noisy blobs: class c is a Gaussian blob at its own place on a circle, moved a little, in noise of std 0.5.

    Images [n, 1, s, s], s = `resolution` (default 16, at least 4); 2,000 for training and 500 for testing, 10 classes,
    the same on every call.

    Raises
    ------
    UsageError
        A resolution below 4, or a `data_dir`: there are no files.
    """
    size = 16 if resolution is None else resolution
    if size < 4 or data_dir is not None:
        raise UsageError(f"synthetic images are drawn, at least 4x4; got resolution {size}, data_dir {data_dir}")
    source = generator(0)
    train, test = _draw(TRAIN, size, source), _draw(TEST, size, source)
    return Source(*train, *test, classes=CLASSES, name="synthetic")


def _draw(n: int, size: int, source: torch.Generator) -> Pair:
    targets = torch.randint(0, CLASSES, (n,), generator=source)
    angle = targets * (2 * torch.pi / CLASSES)
    # Coordinates run from -1 to 1 over the image; blobs are 0.25 wide, places 0.43 apart and moved by 0.1.
    centre = 0.7 * torch.stack([angle.sin(), angle.cos()], 1) + 0.1 * torch.randn(n, 2, generator=source)
    blobs = 2 * _bump(centre[:, 0], size)[:, :, None] * _bump(centre[:, 1], size)[:, None, :]
    noise = 0.5 * torch.randn(n, size, size, generator=source)
    return Pair((blobs + noise)[:, None], targets)


def _bump(centre: Tensor, size: int) -> Tensor:
    """Gaussian of width 0.25 around each centre [n], on `size` points from -1 to 1: [n, size]."""
    return torch.exp(-(((torch.linspace(-1, 1, size) - centre[:, None]) / 0.25) ** 2) / 2)

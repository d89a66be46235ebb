"""Random crops and flips of whole batches, without a loop over images."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from closerlook.errors import UsageError


class Augment(Protocol):
    """Inputs of a batch to inputs of the same shape; every draw comes from the generator."""

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """The changed inputs; the ones passed in stay as they are."""


@dataclass(frozen=True)
class CropFlip:
    """Each image padded with zeros by `padding`, cropped to its size at a random place, mirrored with probability 1/2.

    Inputs [n, c, h, w]; zero is the mean of normalised images. The result is ``channels_last`` and depends on the
    generator only, not on the device.

    Raises
    ------
    UsageError
        The inputs are not 4-dimensional, or `padding` is negative.

    Examples
    --------
    >>> CropFlip(padding=4)(torch.ones(2, 3, 32, 32), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 32, 32])
    """

    padding: int = 4
    flip: bool = True

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """The changed inputs [n, c, h, w]."""
        if inputs.ndim != 4 or self.padding < 0:
            raise UsageError(
                f"CropFlip needs images [n, c, h, w] and a padding of at least 0; got {tuple(inputs.shape)} "
                f"and {self.padding}"
            )
        top, left, mirrored = (draw.to(inputs.device) for draw in self.draw(len(inputs), generator))
        height, width = (torch.arange(size, device=inputs.device) for size in inputs.shape[2:])
        # Channels last before the pixels are picked: a pixel's channels lie together and are copied together.
        padded = functional.pad(inputs, [self.padding] * 4).permute(0, 2, 3, 1)
        n, tall, wide, channels = padded.shape
        corners = torch.arange(n, device=inputs.device) * tall + top
        columns = left[:, None] + torch.where(mirrored[:, None], width.flip(0), width)
        pixels = (corners[:, None] + height)[:, :, None] * wide + columns[:, None, :]
        picked = padded.reshape(-1, channels).index_select(0, pixels.flatten())
        return picked.view(*pixels.shape, channels).permute(0, 3, 1, 2)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Top and left edge of every crop in the padded image, and whether it is mirrored; each [n]."""
        edges = torch.randint(0, 2 * self.padding + 1, (2, n), generator=generator)
        mirrored = torch.randint(0, 2, (n,), generator=generator).bool() & self.flip
        return edges[0], edges[1], mirrored

"""What a data set is to the rest of the package: its images, its classes, and how images become inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Pair(NamedTuple):
    """Inputs [n, ...] and targets [n] of the same examples."""

    inputs: Tensor
    targets: Tensor


def as_they_are(images: Tensor) -> Tensor:
    """The images unchanged."""
    return images


@dataclass(frozen=True)
class Source:
    """A labelled data set in memory, with its official test part.

    `train_inputs` [n, ...] and `test_inputs` are kept as they were stored (images as bytes) and become the model's
    inputs by `prepare`, so that a small subset costs a small subset. `train_targets` and `test_targets` are int64 [n]
    in 0 .. classes - 1. `validation` is the user's own validation part where there is one.
    """

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    classes: int
    name: str
    prepare: Callable[[Tensor], Tensor] = as_they_are
    validation: Pair | None = None

    def input_shape(self) -> tuple[int, ...]:
        """Shape of one prepared input, e.g. (1, 32, 32): what a model has to accept."""
        return tuple(self.prepare(self.train_inputs[:1]).shape[1:])


@dataclass(frozen=True)
class Preparation:
    """Bytes to inputs: (x / 255 - mean) / std per channel, padded with zeros by `padding`, averaged over 2x2 blocks.

    Images [n, c, h, w] of bytes to float32 [n, c, (h + 2 padding) / s, (w + 2 padding) / s], s = 2 if `halve` else 1.
    Padding comes after normalising: the border has the mean colour.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int = 0
    halve: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """The inputs of `images`."""
        mean, std = (torch.tensor(value)[:, None, None] for value in (self.mean, self.std))
        inputs = functional.pad((images.float() / 255 - mean) / std, [self.padding] * 4)
        return functional.avg_pool2d(inputs, 2) if self.halve else inputs

"""Random streams named by a few numbers, so that any draw can be made again without the ones before it."""

import numpy as np
import torch
from torch import Tensor

from closerlook.errors import UsageError


def sequence(*parts: int) -> np.random.SeedSequence:
    """The seed of the stream named by `parts`, e.g. (seed, epoch, batch).

    NumPy's SeedSequence hashes all parts together: neighbouring seeds, epochs or batches have unrelated streams, where
    a sum such as seed + epoch would hand the same stream to two of them. Every part is a non-negative integer.
    """
    if min(parts) < 0:
        raise UsageError(f"seeds, epochs and batch numbers count from 0; got {parts}")
    return np.random.SeedSequence(parts)


def generator(*parts: int) -> torch.Generator:
    """A PyTorch CPU generator at the start of the stream named by `parts`."""
    seed = int(sequence(*parts).generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator().manual_seed(seed)


def permutation(n: int, *parts: int) -> Tensor:
    """A random order of 0 .. n - 1 [n], int64, from the stream named by `parts`.

    Drawn by NumPy's RandomState, whose streams are promised never to change between versions: which images a seed
    trains on is part of a result.
    """
    return torch.from_numpy(np.random.RandomState(np.random.MT19937(sequence(*parts))).permutation(n))

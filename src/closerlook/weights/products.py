"""Sums over all weights, in float64."""

import torch
from torch import Tensor


def gram(vectors: list[Tensor], origin: Tensor, chunk: int = 1 << 20) -> Tensor:
    """Inner products of the differences v_i - origin in float64: a matrix [K, K].

    Differences and sums run in float64, chunk by chunk: a float32 dot product over 15 million entries is off
    by 5e-4.

    Examples
    --------
    >>> gram([torch.ones(3), torch.arange(3.0)], origin=torch.zeros(3))
    tensor([[3., 3.],
            [3., 5.]], dtype=torch.float64)
    """
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for start in range(0, vectors[0].numel(), chunk):
        span = slice(start, start + chunk)
        part = torch.stack([vector[span].double().cpu() - origin[span].double().cpu() for vector in vectors])
        total += part @ part.T
    return total


def distance(a: Tensor, b: Tensor) -> float:
    """Euclidean distance of two vectors, summed in float64."""
    return float(torch.linalg.vector_norm(a.double().cpu() - b.double().cpu()))

"""A fixed exchange of examples within their classes."""

import torch
from torch import Tensor

from closerlook.data.seeds import permutation


def permuted_within_class(targets: Tensor, seed: int) -> Tensor:
    """For every example another one of its class: ``indices`` [n], with ``targets[indices] == targets``.

    In each class the examples stand in a circle of random order, and each points to its neighbour. So every example is
    pointed to once, and none to itself unless it is alone in its class. Indexing soft targets with it gives each image
    those of another image of its class: all that is left of the teacher is what it says about the class.

    Examples
    --------
    >>> permuted_within_class(torch.tensor([0, 1, 0, 1, 2]), seed=0).tolist()
    [2, 3, 0, 1, 4]
    """
    indices = torch.empty(len(targets), dtype=torch.int64)
    for number, label in enumerate(targets.unique()):
        members = (targets == label).nonzero().flatten().cpu()
        circle = members[permutation(len(members), seed, number)]
        indices[circle] = circle.roll(1)
    return indices

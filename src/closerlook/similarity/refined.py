"""A second pass for ill-conditioned layers: sums of examples that the first pass has whitened.

The sums of the first pass lose eps cond^2. Whitened by them, the examples are nearly uncorrelated, so that the second
sums lose next to nothing: Cholesky QR, twice (Yamamoto et al. 2015, ETNA 44, 306).
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from closerlook.errors import MismatchError
from closerlook.similarity.moments import HINT, Moments
from closerlook.similarity.pair import Layer, Pair
from closerlook.similarity.stream import Rows, checked


def refined(pair: Pair, again: Iterable[tuple[Rows, Rows]]) -> Pair:
    """The pair of the whitened examples; whatever is invariant to invertible maps can be read from it.

    Raises
    ------
    MismatchError
        `again` has another number of examples than the first pass.
    """
    moments = Moments(dtype=torch.float64)
    whiten_x, whiten_y = _map(pair.left), _map(pair.right)
    for x, y in again:
        rows = [checked(name, each, ("examples", "units"), HINT).double() for name, each in (("x", x), ("y", y))]
        moments.update((rows[0] - pair.left.mean) @ whiten_x, (rows[1] - pair.right.mean) @ whiten_y)
    if moments.n != pair.n:
        raise MismatchError(f"the second pass has {moments.n} examples and the first had {pair.n}; give the same ones")
    return moments.pair()


def _map(layer: Layer) -> Tensor:
    """Weights [width, rank] of the units in the whitened directions."""
    return layer.whitening.directions(torch.eye(layer.whitening.rank, dtype=torch.float64))

"""What is known of a layer alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from closerlook.similarity.pair import Layer


@dataclass(frozen=True)
class Side:
    """One layer of one model: its name, the width of its rows, the directions in them and their condition.

    `condition` is that of the units at unit variance (sums lose eps times its square); `dropped` counts units that
    do not vary.
    """

    layer: str
    width: int
    rank: int
    condition: float
    dropped: int


def side_of(name: str, layers: Sequence[Layer]) -> Side:
    """The facts of a layer, or of its spatial frequencies: the largest rank and condition, units that vary nowhere."""
    whitenings = [layer.whitening for layer in layers]
    conditions = [each.condition for each in whitenings if each.rank]
    dropped = set.intersection(*(set(each.dropped) for each in whitenings))
    ranks = max(each.rank for each in whitenings)
    return Side(name, layers[0].width, ranks, max(conditions, default=float("nan")), len(dropped))

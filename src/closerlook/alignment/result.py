"""What an alignment is: the permuted network, and how it came about."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from closerlook.alignment.groups import Order
from closerlook.weights import Point

Method = Literal["weights", "activations"]


@dataclass(frozen=True, eq=False)
class Alignment:
    """A network whose hidden units were permuted so that it lies near another: `point`, and how it came about.

    `permutations` are the orders by group of units: unit i was unit ``order[i]``. `distance_before` and
    `distance_after` are L2 norms of the difference of all weights; `tried` the latter for every restart.
    `output_difference` is the largest between the outputs of the permuted network and those of the same network before,
    on the first batch.
    """

    point: Point
    permutations: Mapping[str, Order]
    method: Method
    distance_before: float
    distance_after: float
    output_difference: float
    tried: tuple[float, ...]

    @property
    def moved(self) -> int:
        """How many hidden units changed their place."""
        return int(sum((order != np.arange(len(order))).sum() for order in self.permutations.values()))

    @property
    def units(self) -> int:
        """How many hidden units could change their place."""
        return sum(map(len, self.permutations.values()))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the point, as plain lists and numbers."""
        return {
            "method": self.method, "distance_before": self.distance_before, "distance_after": self.distance_after,
            "output_difference": self.output_difference, "tried": list(self.tried), "moved": self.moved,
            "units": self.units, "permutations": {name: each.tolist() for name, each in self.permutations.items()},
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], point: Point) -> "Alignment":
        """The alignment that `to_dict` wrote, with its point."""
        names = ("method", "distance_before", "distance_after", "output_difference")
        orders = {name: np.array(order) for name, order in stored["permutations"].items()}
        return cls(point, orders, tried=tuple(stored["tried"]), **{name: stored[name] for name in names})

    def __str__(self) -> str:
        return (
            f"{self.moved} of {self.units} hidden units in {len(self.permutations)} groups changed places, by "
            f"{self.method}: distance of weights {self.distance_before:.4g} before, {self.distance_after:.4g} after; "
            f"outputs differ by at most {self.output_difference:.2g}"
        )

"""What every measure returns: the value with all that is needed to judge it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closerlook.similarity.chance import Chance

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Similarity:
    """One similarity of two representations.

    Attributes
    ----------
    measure : name of the measure.
    value : the similarity; NaN when a side has rank 0. More is more similar, for every measure.
    coefficients : what the value summarises, largest first (empty where there is nothing to summarise).
    null : where the chance level comes from; `.chance` and `.corrected` read it, a simulation runs only then.
    n : number of examples.
    ranks : directions of each side that the measure used.
    dropped : indices of the constant units of each side.
    condition : condition number of each side's units at unit variance (SVCCA: as they are), kept directions only:
        whitened measures are exact to about 2e-16 times its square, CKA and Procrustes invert nothing.
    conventions : the choices that change the number.
    details : further numbers of this measure (Procrustes distance and angle, the weights of PWCCA, ...).
    notes : what a reader must know before using the value.
    """

    measure: str
    value: float
    null: Chance
    n: int
    ranks: tuple[int, int]
    coefficients: Array = field(default_factory=lambda: np.empty(0))
    dropped: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    condition: tuple[float, float] = (float("nan"), float("nan"))
    conventions: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def chance(self) -> float:
        """Expected value when the examples of one side are paired at random with those of the other."""
        return self.null.value

    @property
    def corrected(self) -> float:
        """``(value - chance) / (1 - chance)``: 0 at chance, 1 for equal representations."""
        return (self.value - self.chance) / (1 - self.chance)

    def __float__(self) -> float:
        return self.value

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python values; missing numbers are None."""
        return {
            "measure": self.measure, "value": _plain(self.value), "chance": _plain(self.chance),
            "corrected": _plain(self.corrected), "chance_from": self.null.how,
            "chance_error": _plain(self.null.error), "chance_draws": self.null.draws, "n": self.n,
            "ranks": list(self.ranks), "coefficients": _plain(self.coefficients),
            "dropped": [list(side) for side in self.dropped], "condition": _plain(np.array(self.condition)),
            "conventions": {name: _plain(value) for name, value in self.conventions.items()},
            "details": {name: _plain(value) for name, value in self.details.items()}, "notes": list(self.notes),
        }  # fmt: skip


def _plain(value: Any) -> Any:
    """Numbers that JSON knows; NaN becomes None."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

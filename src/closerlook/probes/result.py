"""What linear probes read from each layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from closerlook import figures
from closerlook.agreement.intervals import Estimate

WORDS = {"accuracy": "test accuracy of a linear probe", "r2": "R^2 of a linear probe on the test part"}


@dataclass(frozen=True)
class Probe:
    """The probe of one layer of `width` units.

    `score` is the accuracy or R^2 on the test part, `train` that on the training part, `agreement` how often the
    largest output is the teacher's (None where there is no teacher). `penalty` is the chosen one: |w|^2 / 2 times it
    beside summed cross-entropies, |w|^2 times it beside summed squares. Choosing and fitting took `seconds` of
    one processor.
    """

    layer: str
    width: int
    score: Estimate
    train: float
    penalty: float
    seconds: float
    agreement: Estimate | None = None

    def row(self) -> dict[str, Any]:
        """Plain values."""
        told = {"layer": self.layer, "width": self.width, **_ends(self.score, ""), "train": self.train}
        also = {} if self.agreement is None else _ends(self.agreement, "agreement_")
        return {**told, **also, "penalty": self.penalty, "seconds": self.seconds}


def _ends(estimate: Estimate, name: str) -> dict[str, float]:
    shown = name.rstrip("_") or "value"
    return {shown: estimate.value, f"{name}low": estimate.low, f"{name}high": estimate.high}


@dataclass(frozen=True, eq=False)
class Probes:
    """Linear probes of every chosen layer of one network, in the order of the forward pass.

    `quantity` is ``"accuracy"`` (of labels) or ``"r2"`` (of real numbers). `chance` is what a probe reaches that sees
    nothing: the share of the commonest training class, or R^2 = 0; `chance_agreement` the share of the teacher's
    commonest label. Intervals of confidence `level` are over test images, not over seeds.
    """

    probes: tuple[Probe, ...]
    target: str
    quantity: str
    chance: float
    n_train: int
    n_test: int
    level: float
    handling: Mapping[str, str]
    chance_agreement: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def values(self) -> dict[str, float]:
        """The score by layer."""
        return {probe.layer: probe.score.value for probe in self.probes}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON takes them."""
        rest = {name: value for name, value in vars(self).items() if name not in ("probes", "handling", "notes")}
        rows = [probe.row() for probe in self.probes]
        return {**rest, "handling": dict(self.handling), "notes": list(self.notes), "probes": rows}

    def to_frame(self) -> pd.DataFrame:
        """One row per layer; `value`, `low` and `high` are of the quantity."""
        told = {
            "target": self.target, "quantity": self.quantity, "chance": self.chance, "n_train": self.n_train,
            "n_test": self.n_test,
        }  # fmt: skip
        return pd.DataFrame([{**probe.row(), **told} for probe in self.probes])

    def plot(self, ax: Axes | None = None) -> Axes:
        """The score from input to output; bars are intervals over test images, dots the chance level."""
        scores = [probe.score for probe in self.probes]
        lines: dict[str, dict[int | str, Any]] = {self.target: {0: [each.value for each in scores]}}
        bands = {self.target: ([each.low for each in scores], [each.high for each in scores])}
        chance = {self.target: [self.chance] * len(scores)}
        return figures.layer_profile(
            [probe.layer for probe in self.probes], lines, WORDS[self.quantity], ax, bands=bands, chance=chance
        )

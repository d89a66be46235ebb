"""Similarities of all layers of A with all layers of B, each with what is needed to judge it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from closerlook import figures
from closerlook.errors import MismatchError, UsageError
from closerlook.similarity.sides import Side

Array = NDArray[np.float64]
Tables = Mapping[str, Mapping[str, Array]]  # what is shown, then the measure: [layers of A, layers of B]

_UNITS = {
    "value": "similarity", "corrected": "similarity above chance", "chance": "chance level",
    "random": "similarity with an untrained network", "shuffled": "similarity with shuffled examples",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every measure for every pair of a layer of A and a layer of B.

    `tables` holds arrays [layers of A, layers of B] by what they are and by measure: ``tables["value"]["cka"]``. There
    are ``value``, ``chance`` (expected for examples paired at random), ``corrected`` ((value - chance) / (1 - chance)),
    ``directions_a`` and ``directions_b`` (how many the measure used: ``svcca`` keeps fewer than there are); where asked
    for ``error`` (standard error over examples), ``low`` and ``high`` (a 95 % interval), ``random`` (B untrained) and
    ``shuffled`` (B's examples permuted). NaN where a pair cannot be compared; `notes` say why. `conventions` say by
    measure which choices the number depends on, and where its chance level comes from.
    """

    side_a: tuple[Side, ...]
    side_b: tuple[Side, ...]
    tables: Tables
    n: int
    handling: Mapping[str, str]
    dtype: str
    notes: tuple[str, ...] = ()
    label: str = "A against B"
    conventions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def layers_a(self) -> tuple[str, ...]:
        """Names of A's layers, in the order of the forward pass."""
        return tuple(side.layer for side in self.side_a)

    @property
    def layers_b(self) -> tuple[str, ...]:
        """Names of B's layers, in the order of the forward pass."""
        return tuple(side.layer for side in self.side_b)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures."""
        return tuple(self.tables["value"])

    def table(self, measure: str | None = None, show: str = "value") -> pd.DataFrame:
        """One array with its layers: rows of A, columns of B; by default of the first measure.

        Raises
        ------
        UsageError
            There is no such measure, or no such number of it.
        """
        measure = measure or self.measures[0]
        if show not in self.tables or measure not in self.tables[show]:
            known = "; ".join(f"{kind}: {', '.join(of)}" for kind, of in self.tables.items())
            raise UsageError(f"there is no {show} of {measure!r} here; there is {known}")
        return pd.DataFrame(self.tables[show][measure], index=list(self.layers_a), columns=list(self.layers_b))

    def diagonal(self, measure: str | None = None, show: str = "value") -> pd.Series:
        """The numbers of layers that have the same name in A and B."""
        table = self.table(measure, show)
        same = [layer for layer in self.layers_a if layer in self.layers_b]
        if not same:
            raise UsageError("no layer of A has the name of one of B; name pairs in table() instead")
        return pd.Series([table.loc[layer, layer] for layer in same], index=same, name=show, dtype=float)

    def to_frame(self) -> pd.DataFrame:
        """One row per measure and pair of layers, with every number and what it carries."""
        rows = []
        for measure in self.measures:
            for i, a in enumerate(self.side_a):
                for j, b in enumerate(self.side_b):
                    numbers = {kind: of[measure][i, j] for kind, of in self.tables.items() if measure in of}
                    rows.append(
                        {
                            "measure": measure, "layer_a": a.layer, "layer_b": b.layer, **numbers, "n": self.n,
                            "width_a": a.width, "width_b": b.width, "rank_a": a.rank, "rank_b": b.rank,
                            "condition_a": a.condition, "condition_b": b.condition, "dropped_a": a.dropped,
                            "dropped_b": b.dropped,
                        }
                    )  # fmt: skip
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON takes them; numbers that are missing are None."""
        return {
            "label": self.label, "measures": list(self.measures), "n": self.n, "dtype": self.dtype,
            "handling": dict(self.handling),
            "conventions": {measure: dict(chosen) for measure, chosen in self.conventions.items()},
            "side_a": [_plain(asdict(side)) for side in self.side_a],
            "side_b": [_plain(asdict(side)) for side in self.side_b], "notes": list(self.notes),
            "tables": {
                kind: {measure: _plain(array.tolist()) for measure, array in of.items()}
                for kind, of in self.tables.items()
            },
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Comparison":
        """The comparison that `to_dict` wrote."""
        sides = [tuple(Side(**_number(side)) for side in stored[name]) for name in ("side_a", "side_b")]
        tables = {
            kind: {measure: np.array(of[measure], dtype=float) for measure in stored["measures"]}
            for kind, of in stored["tables"].items()
        }
        return cls(
            sides[0], sides[1], tables, stored["n"], stored["handling"], stored["dtype"], tuple(stored["notes"]),
            stored["label"], stored.get("conventions", {}),
        )  # fmt: skip

    def plot(self, measure: str | None = None, show: str = "value", ax: Axes | None = None) -> Axes:
        """A heat map of one measure, by default the first: ``show="corrected"`` for what is above chance."""
        table = self.table(measure, show)
        title = f"{measure or self.measures[0]}, {self.label}, n = {self.n:,}, {self.handling_used}"
        if show == "value" and not self.is_difference:
            title += f", {self._chance(measure or self.measures[0])}"
        return figures.heat_map(
            table.to_numpy(), self.layers_a, self.layers_b, title, self._unit(show), ax,
            difference=self.is_difference,
        )  # fmt: skip

    def plot_layers(self, measures: Sequence[str] | None = None, show: str = "value", ax: Axes | None = None) -> Axes:
        """Similarity of layers of the same name, from input to output; bars are 95 % intervals, dots chance levels."""
        chosen = tuple(measures or self.measures)
        lines: dict[str, dict[int | str, Array]] = {name: {0: self.diagonal(name, show).to_numpy()} for name in chosen}
        own = show == "value" and not self.is_difference
        bands = {
            measure: (self.diagonal(measure, "low").to_numpy(), self.diagonal(measure, "high").to_numpy())
            for measure in chosen
            if own and "low" in self.tables
        }
        chance = {measure: self.diagonal(measure, "chance").to_numpy() for measure in chosen if own}
        names = list(self.diagonal(chosen[0], show).index)
        return figures.layer_profile(names, lines, self._unit(show), ax, bands=bands, chance=chance)

    def _chance(self, measure: str) -> str:
        levels = self.tables["chance"][measure]
        if np.isnan(levels).all():
            return "chance unknown"
        low, high = (f"{level:.2g}" for level in (np.nanmin(levels), np.nanmax(levels)))
        return f"chance {low}" if low == high else f"chance {low} to {high}"

    def _unit(self, show: str) -> str:
        return ("difference of " if self.is_difference else "") + _UNITS.get(show, show.replace("_", " "))

    @property
    def handling_used(self) -> str:
        """What became of maps and tokens, in words."""
        return ", ".join(f"{what}: {how}" for what, how in self.handling.items())

    @property
    def is_difference(self) -> bool:
        """Whether these are differences of two comparisons."""
        return "chance" not in self.tables

    def __sub__(self, other: "Comparison") -> "Comparison":
        """Differences of values and of chance-corrected values; layers, measures and handling must be the same.

        Raises
        ------
        MismatchError
            The two comparisons are of other layers or measures, or treat maps differently.
        """
        for what in ("layers_a", "layers_b", "measures", "handling"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise MismatchError(f"{what} differ: {mine} here, {theirs} there; compare the same on both sides")
        tables = {
            show: {measure: array - other.tables[show][measure] for measure, array in self.tables[show].items()}
            for show in ("value", "corrected")
        }
        notes = tuple(dict.fromkeys(self.notes + other.notes))
        if self.n != other.n:
            notes += (f"n differs: {self.n} and {other.n}; compare corrected values",)
        return replace(self, tables=tables, notes=notes, label=f"({self.label}) minus ({other.label})")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _number(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {**stored, "condition": float("nan") if stored["condition"] is None else stored["condition"]}

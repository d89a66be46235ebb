"""What was seen of a watched training."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from closerlook import figures
from closerlook.errors import UsageError
from closerlook.watching import words
from closerlook.watching.findings import Instability, Rows, critical, growth, instability

_DRAWN = 8  # blocks that a figure can tell apart


@dataclass(frozen=True, eq=False, kw_only=True)
class WatchReport:
    """What was seen of the first steps of a training; `print` says it in words.

    Attributes
    ----------
    optimizer : its class.
    taken : steps that were watched.
    moves : per step and block gradient norm, relative and angular update, distance and similarity to the start.
    readings : per reading of the probe sharpness, threshold, shares of the top eigenvector, own sharpness of the blocks
        (where the whole is above the threshold), critical learning rate and the rate in use.
    not_finite : step, block and what of it was NaN or infinite first.
    seconds, share : time spent in watching, and its share of the loop's time while it was watched.
    """

    optimizer: str
    taken: int
    moves: Rows
    readings: Rows
    not_finite: Rows
    seconds: float
    share: float

    @cached_property
    def instability(self) -> Instability | None:
        """Who was unstable first and for how long; None where nothing was, or without a probe."""
        return instability(self.readings)

    @property
    def critical(self) -> dict[str, Any] | None:
        """The critical learning rate at the first reading and where it is lowest against the one in use."""
        return critical(self.readings)

    @property
    def growth(self) -> dict[str, Any] | None:
        """Whose gradient grew first, and whose most."""
        return growth(self.moves)

    def to_dict(self) -> dict[str, Any]:
        """Findings and rows as plain values."""
        found = self.instability
        return {
            "optimizer": self.optimizer, "steps": self.taken, "seconds": self.seconds, "share": self.share,
            "instability": None if found is None else found.to_dict(), "critical": self.critical,
            "growth": self.growth, "not_finite": [dict(row) for row in self.not_finite],
            "moves": [dict(row) for row in self.moves], "readings": [dict(row) for row in self.readings],
        }  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """One row per step and block; what the probe read stands at the steps of its readings."""
        read = {row["step"]: row for row in self.readings}
        return pd.DataFrame(
            [
                {"step": row["step"], "lr": row["lr"], "block": block, **numbers, **_read(read.get(row["step"]), block)}
                for row in self.moves
                for block, numbers in row["blocks"].items()
            ]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Sharpness against the threshold where there was a probe, else the relative updates of the blocks.

        Raises
        ------
        UsageError
            No step was watched.
        """
        if not self.moves:
            raise UsageError("there is nothing to draw: no step was watched")
        return self._sharpness(ax) if any(row["sharpness"] for row in self.readings) else self._updates(ax)

    def _sharpness(self, ax: Axes | None) -> Axes:
        steps, sharp = ([row[name] for row in self.readings] for name in ("step", "sharpness"))
        lines: dict[str, dict[int | str, Any]] = {"watched": {0: np.array(sharp, dtype=float)}}
        return figures.sharpness_trace(
            {"watched": steps}, lines, {"watched": [row["threshold"] for row in self.readings]}, ax
        )

    def _updates(self, ax: Axes | None) -> Axes:
        names = list(self.moves[0]["blocks"])
        chosen = [names[int(place)] for place in np.linspace(0, len(names) - 1, min(len(names), _DRAWN))]
        values = {name: np.array([row["blocks"][name]["update"] for row in self.moves], dtype=float) for name in chosen}
        return figures.updates([row["step"] for row in self.moves], values, ax)

    def __str__(self) -> str:
        lines = [f"{self.optimizer}, {self.taken} steps watched", *words.not_finite(self.not_finite)]
        if self.readings:
            lines += words.of_instability(self.instability, self.readings[-1]["step"])
            lines += words.of_critical(self.critical)
        else:
            lines += words.of_growth(self.growth)
        return "\n  ".join([*lines, f"watching took {self.seconds:.1f} s, {100 * self.share:.0f} % of the loop's time"])


def _read(row: Mapping[str, Any] | None, block: str) -> dict[str, Any]:
    if row is None:
        return {}
    whole = {name: row[name] for name in ("sharpness", "threshold", "critical_lr")}
    return {**whole, "share_of_top": row["shares"].get(block), "own_sharpness": row["blocks"].get(block)}

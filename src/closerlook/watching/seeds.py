"""Several watched trainings, one per seed, together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from closerlook import figures
from closerlook.errors import UsageError
from closerlook.evidence.paired import LEVEL, spread
from closerlook.watching.report import WatchReport
from closerlook.watching.watch import watch


@dataclass(frozen=True)
class Spread:
    """A number over seeds: its values, mean and Student's interval; on a log scale where `log` says so."""

    name: str
    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, name: str, values: Sequence[float], log: bool = False) -> "Spread":
        """Mean and interval; that of a single seed has no ends."""
        ends = spread(np.log(values) if log else values)
        mean, low, high = (float(np.exp(end) if log else end) for end in ends)
        return cls(name, tuple(values), mean, low, high, log)

    def __str__(self) -> str:
        ends = "" if math.isnan(self.low) else f", {self.low:.3g} to {self.high:.3g}"
        return f"{self.name}: {self.mean:.3g}{ends} ({len(self.values)} seeds)"


@dataclass(frozen=True, eq=False)
class SeedsReport:
    """What several watched trainings of one setting have in common; `print` says it in words."""

    reports: tuple[WatchReport, ...]
    spreads: tuple[Spread, ...]
    unstable: int
    first: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Counts and intervals as plain values; ends that are not known are None."""
        return {
            "seeds": len(self.reports),
            "unstable": self.unstable,
            "first": dict(self.first),
            "level": LEVEL,
            "numbers": [
                {key: None if value != value else value for key, value in vars(each).items()} for each in self.spreads
            ],
        }

    def to_frame(self) -> pd.DataFrame:
        """One row per number."""
        return pd.DataFrame([vars(each) | {"n": len(each.values)} for each in self.spreads])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Sharpness of every seed against the threshold of the first.

        Raises
        ------
        UsageError
            There was no probe.
        """
        longest = max((report.readings for report in self.reports), key=len)
        if not longest:
            raise UsageError("there is no sharpness to draw: watch with a probe")
        lines: dict[str, dict[int | str, Any]] = {
            "watched": {
                seed: np.array([row["sharpness"] for row in report.readings], dtype=float)
                for seed, report in enumerate(self.reports)
            }
        }
        steps, thresholds = ([row[name] for row in longest] for name in ("step", "threshold"))
        return figures.sharpness_trace({"watched": steps}, lines, {"watched": thresholds}, ax)

    def __str__(self) -> str:
        n = len(self.reports)
        lines = [f"{n} seeds, intervals of {100 * LEVEL:.0f} % (Student's t)"]
        if any(report.readings for report in self.reports):
            lines.append(f"sharpness above the threshold of the learning rate in use in {self.unstable} of {n}")
        lines += [f"first of all {block}: {count} of {n}" for block, count in self.first.items()]
        return "\n  ".join([*lines, *map(str, self.spreads)])


def across_seeds(watched: Sequence[watch | WatchReport]) -> SeedsReport:
    """What watched trainings of one setting, one per seed, say together: counts, and intervals over the seeds.

    Student's t over the seeds, for learning rates and ratios on a log scale. A seed without a number (no instability,
    or one whose end was not seen) does not count in its interval.

    Raises
    ------
    UsageError
        There is none, or some had a probe and some had not.

    Examples
    --------
    >>> row = {"step": 0, "lr": 0.1, "threshold": 20.0, "sharpness": 30.0, "blocks": {"fc": 25.0}, "critical_lr": 0.05}
    >>> one = WatchReport(
    ...     optimizer="SGD", taken=1, moves=(), readings=(row,), not_finite=(), seconds=0.0, share=0.0
    ... )
    >>> print(across_seeds([one, one]))
    2 seeds, intervals of 90 % (Student's t)
      sharpness above the threshold of the learning rate in use in 2 of 2
      first of all fc: 2 of 2
      critical learning rate at the first reading: 0.05, 0.05 to 0.05 (2 seeds)
      lowest critical learning rate over the one in use: 0.5, 0.5 to 0.5 (2 seeds)
      sharpness over its threshold, highest: 1.5, 1.5 to 1.5 (2 seeds)
    """
    reports = tuple(each if isinstance(each, WatchReport) else each.report() for each in watched)
    if not reports or len({bool(report.readings) for report in reports}) > 1:
        raise UsageError("across_seeds takes at least one watched training, all of them with a probe or all without")
    found = [report.instability for report in reports if report.instability is not None]
    first: dict[str, int] = {}
    for each in found:
        if each.block is not None:
            first[each.block] = first.get(each.block, 0) + 1
    return SeedsReport(
        reports, tuple(_spreads(reports)), len(found), dict(sorted(first.items(), key=lambda one: -one[1]))
    )


def _spreads(reports: Sequence[WatchReport]) -> list[Spread]:
    critical = [report.critical for report in reports if report.critical is not None]
    found = [report.instability for report in reports if report.instability is not None]
    least = [row["least"]["critical_lr"] / row["least"]["lr"] for row in critical if row["least"]["lr"]]
    numbers = [
        ("critical learning rate at the first reading", [row["first"]["critical_lr"] for row in critical], True),
        ("lowest critical learning rate over the one in use", least, True),
        ("sharpness over its threshold, highest", [each.peak for each in found], True),
        ("instability ends at step", [float(each.ends) for each in found if each.ends is not None], False),
    ]
    return [Spread.of(name, values, log) for name, values, log in numbers if values]

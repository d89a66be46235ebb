"""How far two models agree: every quantity with its interval, on all examples and where B was right or wrong."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from closerlook import figures
from closerlook.agreement.columns import BINS
from closerlook.agreement.intervals import Estimate
from closerlook.errors import UsageError

OVER = "over images, not over seeds"
_DRAWN = ("agreement", "accuracy_a", "accuracy_b", "js", "ece_a", "ece_b")
_LOGITS = "logits [n, classes] and hits [n] (bool) from the batch function"
_NEEDS = {
    "kappa": f"{_LOGITS}, and all examples",
    "gain": "targets [n] that are class numbers beside the logits",
    "r2": "outputs that are no logits with hits", "rms_difference": "outputs that are no logits with hits",
    "loss_a": "targets or losses", "loss_b": "targets or losses",
}  # fmt: skip


def _of_all(name: str, what: str) -> Any:
    return property(lambda found: found.estimate(name).value, doc=what)


@dataclass(frozen=True, eq=False)
class Agreement:
    """What two models gave for the same examples; A may be a student and B its teacher.

    `parts` holds an :class:`Estimate` by part (``"all"``, ``"b right"``, ``"b wrong"``) and by name, `sizes` the number
    of examples in each part. Shares lie in [0, 1], divergences (at `temperature`) and losses are in nats. Intervals of
    confidence `level` are over images, not over seeds: what other images would give, for these two models.
    """

    parts: Mapping[str, Mapping[str, Estimate]]
    sizes: Mapping[str, int]
    level: float = 0.95
    temperature: float = 1.0

    agreement = _of_all("agreement", "Share of examples with the same top-1 label.")
    disagreement = _of_all("disagreement", "1 - agreement.")
    kl_a_b = _of_all("kl_a_b", "Mean of sum_c p_a log(p_a / p_b).")
    kl_b_a = _of_all("kl_b_a", "Mean of sum_c p_b log(p_b / p_a): what distillation of A from B minimises.")
    js = _of_all("js", "Jensen-Shannon divergence, at most ln 2.")
    error_overlap = _of_all("error_overlap", "Both wrong / at least one wrong.")
    kappa = _of_all("kappa", "Cohen's kappa of being right; NaN where it is 0 / 0.")
    accuracy_a = _of_all("accuracy_a", "Accuracy of A.")
    accuracy_b = _of_all("accuracy_b", "Accuracy of B.")
    ece_a = _of_all("ece_a", "Expected calibration error of A, 15 bins of equal width.")
    ece_b = _of_all("ece_b", "Expected calibration error of B, 15 bins of equal width.")
    loss_a = _of_all("loss_a", "Mean loss of A: its negative log-likelihood under the default batch function.")
    loss_b = _of_all("loss_b", "Mean loss of B.")
    gain = _of_all("gain", "Accuracy of the mean of both probabilities minus that of the better model.")
    rms_difference = _of_all("rms_difference", "Root mean square of A's outputs minus B's.")
    r2 = _of_all("r2", "Share of the variance of B's outputs that A's give.")

    @property
    def n(self) -> int:
        """Number of examples."""
        return self.sizes["all"]

    def estimate(self, name: str, part: str = "all") -> Estimate:
        """One quantity with its interval.

        Raises
        ------
        UsageError
            There is no such part, no example in it, or the quantity is not defined for these outputs.
        """
        if part not in self.sizes:
            raise UsageError(f"there is no part {part!r} here; there is {', '.join(self.sizes)}")
        if not self.sizes[part]:
            raise UsageError(f"no example is in the part {part!r}")
        if name not in self.parts[part]:
            needs = _NEEDS.get(name, _LOGITS)
            raise UsageError(f"{name} is not defined here: it needs {needs}; there is {', '.join(self.parts[part])}")
        return self.parts[part][name]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON takes them; numbers that are missing are None."""
        return {
            "n": self.n, "level": self.level, "intervals": OVER, "temperature": self.temperature,
            "calibration_bins": BINS, "sizes": dict(self.sizes),
            "parts": {
                part: {name: _plain(asdict(each)) for name, each in of.items()} for part, of in self.parts.items()
            },
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Agreement":
        """The agreement that `to_dict` wrote."""
        parts = {
            part: {name: Estimate(**_number(each)) for name, each in of.items()} for part, of in stored["parts"].items()
        }
        return cls(parts, stored["sizes"], stored["level"], stored["temperature"])

    def to_frame(self) -> pd.DataFrame:
        """One row per part and quantity; `low` and `high` are the interval over images."""
        rows = [
            {"part": part, "quantity": name, **asdict(each), "n": self.sizes[part], "level": self.level}
            for part, of in self.parts.items()
            for name, each in of.items()
        ]
        return pd.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Shares, Jensen-Shannon divergence and calibration by part; bars are the intervals over images."""
        names = [name for name in _DRAWN if name in self.parts["all"]] or list(self.parts["all"])
        nowhere = Estimate(float("nan"), float("nan"), float("nan"))
        drawn = {
            f"{part} (n = {self.sizes[part]:,})": [tuple(asdict(of.get(name, nowhere)).values()) for name in names]
            for part, of in self.parts.items()
        }
        shown = [f"{name} (nats)" if name == "js" else name for name in names]
        return figures.estimates(shown, drawn, f"value, {self.level:.0%} interval {OVER}", ax)


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if isfinite(value) else None for name, value in values.items()}


def _number(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float("nan") if value is None else value for name, value in values.items()}

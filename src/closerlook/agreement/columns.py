"""What each example adds to the sums that all quantities of two models are functions of."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from closerlook.agreement.intervals import Array, Sums

BINS = 15  # of equal width over the confidence, as in Guo et al. 2017


@dataclass(frozen=True, eq=False)
class Sides:
    """What two models gave for the same n examples: outputs [n, ...], hits [n] (or shares), losses [n], targets [n]."""

    outputs: tuple[Tensor, Tensor]
    correct: tuple[Tensor, Tensor] | None = None
    losses: tuple[Tensor, Tensor] | None = None
    targets: Tensor | None = None

    @property
    def classify(self) -> bool:
        """Whether the outputs are logits [n, classes] that either hit or do not."""
        return self.correct is not None and self.correct[0].dtype == torch.bool and self.outputs[0].ndim == 2


def columns_of(sides: Sides, temperature: float) -> dict[str, Array]:
    """Values by example, [n] each, [n, bins] for calibration."""
    made = _of_outputs(sides)
    for name, pair in (("right", sides.correct), ("loss", sides.losses)):
        if pair is not None:
            made |= {f"{name}_{side}": value.double() for side, value in zip("ab", pair, strict=True)}
    if sides.classify:
        made |= _of_logits(*sides.outputs, temperature)
        wrong_a, wrong_b = 1 - made["right_a"], 1 - made["right_b"]
        made |= {"both_wrong": wrong_a * wrong_b, "any_wrong": torch.maximum(wrong_a, wrong_b)}
        for side, logits in zip("ab", sides.outputs, strict=True):
            made[f"gap_{side}"] = _gaps(logits, made[f"right_{side}"])
        if sides.targets is not None:
            mean = torch.stack([logits.double().softmax(1) for logits in sides.outputs]).mean(0)
            made["right_mean"] = (mean.argmax(1) == sides.targets).double()
    return {name: np.asarray(value, dtype=np.float64) for name, value in made.items()}


def _of_outputs(sides: Sides) -> dict[str, Tensor]:
    a, b = (outputs.double().flatten(1) if outputs.ndim > 1 else outputs.double()[:, None] for outputs in sides.outputs)
    return {
        "n": torch.ones(len(a), dtype=torch.float64), "distance": (a - b).square().sum(1),
        "spread": (b - b.mean(0)).square().sum(1), "mean_square": (a - b).square().mean(1),
    }  # fmt: skip


def _of_logits(a: Tensor, b: Tensor, temperature: float) -> dict[str, Tensor]:
    log_a, log_b = ((logits.double() / temperature).log_softmax(1) for logits in (a, b))
    middle = torch.logaddexp(log_a, log_b) - np.log(2)
    return {
        "agree": (a.argmax(1) == b.argmax(1)).double(), "kl_a_b": _kl(log_a, log_b), "kl_b_a": _kl(log_b, log_a),
        "js": (_kl(log_a, middle) + _kl(log_b, middle)) / 2,
    }  # fmt: skip


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Divergence by example; a class without probability under p adds nothing, and rounding no negative one."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(1).clamp(min=0)


def _gaps(logits: Tensor, right: Tensor) -> Tensor:
    """Hit minus confidence, in the column of the confidence's bin."""
    confidence = logits.double().softmax(1).amax(1)
    place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    return torch.zeros(len(right), BINS, dtype=torch.float64).scatter(1, place[:, None], (right - confidence)[:, None])


def quantities(s: Sums) -> dict[str, Array]:
    """Everything that the sums decide but the shares, whose intervals are of another kind."""
    n = s["n"]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {name: s[name] / n for name in ("kl_a_b", "kl_b_a", "js", "loss_a", "loss_b") if name in s}
        if "agree" not in s:
            found |= {"rms_difference": np.sqrt(s["mean_square"] / n), "r2": 1 - s["distance"] / s["spread"]}
            found |= {f"accuracy_{side}": s[f"right_{side}"] / n for side in "ab" if f"right_{side}" in s}
            return found
        found["kappa"] = _kappa(s)
        for side in "ab":
            found[f"ece_{side}"] = np.abs(s[f"gap_{side}"]).sum(-1) / n
        if "right_mean" in s:
            found["gain"] = (s["right_mean"] - np.maximum(s["right_a"], s["right_b"])) / n
    return found


def _kappa(s: Sums) -> Array:
    n, right_a, right_b = s["n"], s["right_a"] / s["n"], s["right_b"] / s["n"]
    same = 1 - (s["any_wrong"] - s["both_wrong"]) / n
    by_chance = right_a * right_b + (1 - right_a) * (1 - right_b)
    kappa: Array = (same - by_chance) / np.where(by_chance == 1, np.nan, 1 - by_chance)
    return kappa

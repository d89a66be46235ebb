"""From the outputs of two models to every quantity, on all examples and by whether B was right."""

from math import inf, log

import numpy as np
import torch
from torch import Tensor

from closerlook.agreement.columns import Sides, columns_of, quantities
from closerlook.agreement.intervals import Array, Estimate, jackknife, wilson
from closerlook.agreement.result import Agreement
from closerlook.errors import MismatchError, NotFiniteError, UsageError

_RANGES = {
    "kl_a_b": (0.0, inf), "kl_b_a": (0.0, inf), "js": (0.0, log(2)), "kappa": (-1.0, 1.0), "ece_a": (0.0, 1.0),
    "ece_b": (0.0, 1.0), "gain": (-1.0, 1.0), "rms_difference": (0.0, inf), "r2": (-inf, 1.0),
}  # fmt: skip


def compare_logits(
    a: Tensor,
    b: Tensor,
    correct_a: Tensor,
    correct_b: Tensor,
    targets: Tensor | None = None,
    *,
    temperature: float = 1.0,
    level: float = 0.95,
) -> Agreement:
    """`agreement` from stored logits [n, c] and hits [n]; losses and the ensemble's gain need targets [n].

    Raises
    ------
    UsageError
        The tensors are no logits and hits of the same examples, or hold NaN; temperature or level make no sense.

    Examples
    --------
    >>> logits, right = torch.eye(3), torch.tensor([True, True, False])
    >>> compare_logits(logits, 2 * logits, right, right).kappa
    1.0
    """
    hits = (correct_a, correct_b)
    if a.ndim != 2 or any(hit.dtype != torch.bool or hit.shape != a.shape[:1] for hit in hits):
        raise UsageError("compare_logits takes logits [n, classes] and hits [n] (bool) of both models")
    losses = None
    if targets is not None:
        targets = targets.long()
        losses = tuple(-x.double().log_softmax(1).gather(1, targets[:, None])[:, 0] for x in (a, b))
    pair = None if losses is None else (losses[0], losses[1])
    return from_sides(Sides((a, b), hits, pair, targets), temperature, level)


def from_sides(sides: Sides, temperature: float = 1.0, level: float = 0.95) -> Agreement:
    """Every quantity that is defined for these outputs.

    Raises
    ------
    UsageError
        The outputs differ in shape or hold NaN; temperature or level make no sense.
    """
    check_settings(temperature, level)
    _check(sides)
    columns = columns_of(sides, temperature)
    every = np.ones(len(columns["n"]), dtype=bool)
    masks = {"all": every}
    if sides.classify:
        right = columns["right_b"] == 1
        masks |= {"b right": right, "b wrong": ~right}
    parts, sizes = {}, {}
    for part, mask in masks.items():
        sizes[part] = int(mask.sum())
        if sizes[part]:
            parts[part] = _estimates({name: values[mask] for name, values in columns.items()}, level)
            if part != "all":
                del parts[part]["kappa"]  # beside a model that is always right, or always wrong, it is 0
    return Agreement(parts, sizes, level, temperature)


def check_settings(temperature: float, level: float) -> None:
    """Refuse a temperature that is not positive and a level that is no probability."""
    if not 0 < temperature < inf:
        raise UsageError(f"the temperature divides logits and must be positive and finite, not {temperature}")
    if not 0 < level < 1:
        raise UsageError(f"the level of intervals is a probability between 0 and 1, not {level}")


def _check(sides: Sides) -> None:
    a, b = sides.outputs
    if a.shape != b.shape:
        raise MismatchError(
            f"model_a gives outputs {tuple(a.shape)} and model_b {tuple(b.shape)} for the same examples; only outputs "
            "of one shape (the same classes in the same order) can agree"
        )
    for name, outputs in zip(("model_a", "model_b"), sides.outputs, strict=True):
        damaged = int(outputs.isnan().reshape(len(outputs), -1).any(1).sum())
        if damaged:
            raise NotFiniteError(f"{name} gives NaN for {damaged:,} of {len(outputs):,} examples")


def _estimates(columns: dict[str, Array], level: float) -> dict[str, Estimate]:
    shares = _shares(columns, level) if "agree" in columns else {}
    found = jackknife(columns, quantities, level)
    return shares | {name: _inside(estimate, *_RANGES.get(name, (-inf, inf))) for name, estimate in found.items()}


def _shares(columns: dict[str, Array], level: float) -> dict[str, Estimate]:
    sums = {name: float(columns[name].sum()) for name in columns if columns[name].ndim == 1}
    n = sums["n"]
    of = {
        "agreement": (sums["agree"], n), "disagreement": (n - sums["agree"], n),
        "error_overlap": (sums["both_wrong"], sums["any_wrong"]), "accuracy_a": (sums["right_a"], n),
        "accuracy_b": (sums["right_b"], n),
    }  # fmt: skip
    made = {name: wilson(*counts, level) for name, counts in of.items()}
    if not sums["any_wrong"]:
        made["error_overlap"] = Estimate(1.0, 0.0, 1.0)  # all of no errors are shared
    return made


def _inside(estimate: Estimate, low: float, high: float) -> Estimate:
    return Estimate(estimate.value, max(estimate.low, low), min(estimate.high, high))

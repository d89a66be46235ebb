"""What networks said on the test set: logits, accuracies, and what guessing would give."""

import math

import torch
from torch import Tensor

from closerlook import files
from closerlook.runs.recipe import PredictRecipe
from closerlook.studies.plan import Results


def logits(results: Results, role: str) -> dict[str, Tensor] | None:
    """Logits by point, with the targets, of a role that predicts; None when its run diverged."""
    if not results.has(role):
        return None
    stored = files.read_arrays(results.folder(role).path / "results" / "logits.npz")
    return {name: torch.from_numpy(array) for name, array in stored.items()}


def accuracy(held: dict[str, Tensor], point: str) -> float:
    """Share of the test images that a point gets right."""
    return float((held[point].argmax(1) == held["targets"]).double().mean())


def chance(results: Results) -> float:
    """Accuracy of guessing, with as many classes as the networks tell apart; NaN when every run diverged."""
    for role in (role for role, recipe in results.plan.roles.items() if isinstance(recipe, PredictRecipe)):
        held = logits(results, role)
        if held is not None:
            return 1 / next(value.shape[1] for name, value in held.items() if name != "targets")
    return float("nan")


def known_chance(results: Results) -> float | None:
    """The same as a verdict takes it: None where it is not known."""
    level = chance(results)
    return None if math.isnan(level) else level

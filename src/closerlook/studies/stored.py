"""What every study reads from its stored runs, beside what networks said and what layers hold."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from closerlook.runs.recipe import TrainRecipe
from closerlook.studies.plan import Results

Row = dict[str, Any]
Array = NDArray[np.float64]


def row(arm: str, seed: int | str, quantity: str, value: float) -> Row:
    """A row of the table that a rule judges."""
    return {"arm": arm, "seed": str(seed), "quantity": quantity, "value": value}


def arms_of(results: Results) -> list[str]:
    """The arms of the plan that predict, in its order."""
    return list(dict.fromkeys(role.split("/")[0] for role in results.plan.roles if role.endswith("/predict")))


def training(results: Results, role: str) -> TrainRecipe:
    """The recipe of a training."""
    recipe = results.plan.roles[role]
    assert isinstance(recipe, TrainRecipe)
    return recipe


def rates(recipe: TrainRecipe, steps: ArrayLike) -> Array:
    """Learning rate of the step after each of the given ones; NaN from the end of the run on."""
    factor, total = recipe.schedule.factor(recipe.clock), recipe.clock.total_steps
    places = np.asarray(steps).astype(int)
    return np.array([recipe.optimizer.lr * factor(step) if step < total else math.nan for step in places])


def diverged_at(results: Results, role: str) -> int | None:
    """The step at which a training diverged, or None."""
    step: int | None = results.folder(role).result("outcome")["diverged_at"]
    return step


def mean(values: Iterable[float]) -> float:
    """Mean of those that are known; NaN without any."""
    known = [float(value) for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def padded(lines: Sequence[ArrayLike], length: int) -> Array:
    """Lines of several lengths as one array, with NaN after the end of a run that diverged or is shorter."""
    table = np.full((len(lines), length), np.nan)
    for place, line in zip(table, lines, strict=True):
        values = np.asarray(line, dtype=float)
        place[: len(values)] = values
    return table

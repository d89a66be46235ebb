"""Step `boundary`: the largest learning rate at which a training trains, by bisection."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from closerlook import files
from closerlook.errors import StateError, UsageError
from closerlook.runs.recipe import BoundaryRecipe, TrainRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.registry import step
from closerlook.steps.train import trained
from closerlook.training import TrainResult

TRIES = "tries"


@step("boundary")
def run(recipe: BoundaryRecipe, folder: RunFolder) -> None:
    """Bisect; the folder holds the boundary and the outcome of every rate that was tried.

    Raises
    ------
    UsageError
        No rate lies on the grid, or nothing is held out to tell whether a run trains.
    """
    if not recipe.rates:
        raise UsageError(f"no learning rate lies between {recipe.low:g} and {recipe.high:g}; move 'high' up")
    if not recipe.data.n_validation:
        raise UsageError("whether a rate trains is read on validation images: set data.n_validation")
    tried: dict[int, dict[str, Any]] = {}

    def trains(place: int) -> bool:
        tried[place] = _outcome(recipe, place, folder)
        return bool(tried[place]["trains"])

    place = highest(len(recipe.rates), trains)
    found = {"boundary": boundary(recipe, place), "beyond": _beyond(recipe, place)}
    rows = [outcome for _, outcome in sorted(tried.items())]
    files.write_json(folder.path / "results" / "boundary.json", {**found, "tried": rows})
    shutil.rmtree(folder.path / TRIES, ignore_errors=True)


def highest(count: int, holds: Callable[[int], bool]) -> int:
    """The last of `count` places at which something holds that fails from some place on; -1 where it never holds.

    Examples
    --------
    >>> highest(10, lambda place: place <= 6), highest(3, lambda place: False), highest(3, lambda place: True)
    (6, -1, 2)
    """
    low, high = -1, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def boundary(recipe: BoundaryRecipe, place: int) -> float:
    """The middle, in log rate, between the last rate that trains and the next; an end of the grid where it has none."""
    rates = recipe.rates
    if place < 0:
        return rates[0]
    return rates[-1] if place == len(rates) - 1 else rates[place] * recipe.factor**0.5


def _beyond(recipe: BoundaryRecipe, place: int) -> str | None:
    """On which side the boundary lies outside the grid, if it does."""
    return "below" if place < 0 else "above" if place == len(recipe.rates) - 1 else None


def _outcome(recipe: BoundaryRecipe, place: int, folder: RunFolder) -> dict[str, Any]:
    rate = recipe.rates[place]
    optimizer = recipe.train.optimizer.model_copy(update={"lr": rate})
    train = recipe.train.model_copy(update={"optimizer": optimizer})
    result = _tried(train, folder, folder.path / TRIES / f"{place:03d}")
    accuracy = None if result.diverged_at is not None else result.history[-1]["validation_accuracy"]
    held = accuracy is not None and accuracy >= recipe.trains
    return {"lr": rate, "trains": held, "validation_accuracy": accuracy, "diverged_at": result.diverged_at}


def _tried(train: TrainRecipe, folder: RunFolder, out: Path) -> TrainResult:
    """One try; where the step is started again a finished one is read from its state, a damaged one made anew."""
    try:
        return trained(train, folder, out)
    except StateError:
        shutil.rmtree(out)
        return trained(train, folder, out)

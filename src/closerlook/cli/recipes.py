"""A train recipe from a file and changes, checked as far as it can be without training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from closerlook.cli.pairs import put, read_pairs
from closerlook.cli.points import with_source
from closerlook.errors import UsageError
from closerlook.runs.recipe import TrainRecipe, inputs_of
from closerlook.runs.store import Store
from closerlook.steps.setting import network, parts

_TOO_LARGE = 2**63


def read(path: Path, changes: Sequence[str], store: Store) -> TrainRecipe:
    """The recipe of a file, with dotted keys changed.

    Raises
    ------
    UsageError
        No such file, no JSON, a recipe of another kind, or settings that cannot be trained with.
    ValidationError
        Keys that are unknown, missing or of the wrong type.
    """
    settings = _settings(path)
    for key, value in read_pairs(changes).items():
        put(settings, key, value)
    _check_numbers(settings)
    recipe = TrainRecipe.model_validate(settings)
    recipe = recipe.model_copy(update={"model": with_source(recipe.model), "data": with_source(recipe.data)})
    _check(recipe, store)
    return recipe


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"no recipe at {path}; closerlook train --help shows one")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is no JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text; a recipe is a JSON file") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise UsageError(f"{path} is no recipe: {error}") from error
    if not isinstance(settings, dict):
        raise UsageError(f"{path} holds no settings but a {type(settings).__name__}; closerlook train --help shows one")
    if settings.get("kind", "train") != "train":
        raise UsageError(f"{path} is a recipe of kind {settings['kind']}; this verb takes those of kind train")
    return settings


def _check_numbers(value: Any, key: str = "") -> None:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        _check_numbers(item, f"{key}.{name}" if key else str(name))
    if isinstance(value, int | float) and not abs(value) < _TOO_LARGE:  # NaN is no smaller either
        raise UsageError(f"{key}: must be a finite number below 2^63")


def _check(recipe: TrainRecipe, store: Store) -> None:
    if min(recipe.epochs, recipe.batch_size, recipe.data.n_train) < 1:
        raise UsageError("epochs, batch_size and data.n_train must be at least 1")
    for run in inputs_of(recipe):
        if not store.folder(run).done:
            raise UsageError(f"start: {store.root} holds no finished run {run}; closerlook runs ls shows what is there")
    recipe.schedule.factor(recipe.clock)
    late = [time for time in (*recipe.snapshots, *recipe.forks) if recipe.step(time) > recipe.clock.total_steps]
    if late:
        raise UsageError(f"snapshots and forks lie within the {recipe.epochs} epochs of the run, not at {late[0]}")
    parts(recipe.data)
    network(recipe.model, recipe.data, seed=0)

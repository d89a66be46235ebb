"""Steps by kind, and what surrounds every one of them: lock, resume, time, DONE."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from closerlook import files
from closerlook.errors import PointMissingError, StateError, StoreError
from closerlook.landscape.cells import joining
from closerlook.runs.environment import one_thread
from closerlook.runs.recipe import Recipe
from closerlook.runs.store import RunFolder

Step = Callable[[Any, RunFolder], None]
F = TypeVar("F", bound=Callable[..., Any])
CELLS = "cells"
_STEPS: dict[str, Step] = {}
_HELPERS: dict[str, Callable[[Any, RunFolder], Any]] = {}
_PATIENCE, _LOOK = 10.0, 0.2  # seconds to wait for a step's first cell, and between two looks


def step(kind: str) -> Callable[[Step], Step]:
    """Register a function ``(recipe, folder)`` as the step of a recipe's kind.

    A step may be started again at any time: it goes on from what its folder holds. The version that makes
    a changed step another run stands in its recipe.
    """

    def register(function: Step) -> Step:
        _STEPS[kind] = function
        return function

    return register


def helper(kind: str) -> Callable[[F], F]:
    """Register a function that fills cells of a step which another process runs; what it returns is not used."""

    def register(function: F) -> F:
        _HELPERS[kind] = function
        return function

    return register


def has_helper(kind: str) -> bool:
    """Whether several processes can work on one step of this kind."""
    return kind in _HELPERS


def help_step(path: str) -> None:
    """Fill cells of a step that another process runs: the same bytes, sooner. That process alone writes the result."""
    folder, deadline = RunFolder(Path(path)), time.monotonic() + _PATIENCE
    while not any((folder.path / CELLS).glob("*.json")):
        if folder.done or time.monotonic() > deadline:
            return
        time.sleep(_LOOK)
    recipe = folder.recipe()
    # The cells are gone as soon as the step has its result.
    with one_thread(), joining(), suppress(StoreError, FileNotFoundError):
        _HELPERS[recipe.kind](recipe, folder)


def run_step(path: str) -> str:
    """Run the step of a folder unless it is done; returns its name.

    One thread per process: more of them are slower for small batches, and change the bits.
    """
    folder = RunFolder(Path(path))
    if folder.done:
        return folder.id
    with folder.lock(), one_thread():
        if folder.done:  # by the process that was waited for
            return folder.id
        recipe: Recipe = folder.recipe()
        started, cpu = time.time(), time.process_time()
        folder.begin()
        try:
            _go_on(recipe, folder)
        except PointMissingError as error:
            files.write_json(folder.path / "results" / "missing.json", {"reason": str(error)})
        finally:
            folder.note_time(started, time.process_time() - cpu)
        folder.finish()
    return folder.id


def _go_on(recipe: Recipe, folder: RunFolder) -> None:
    try:
        _STEPS[recipe.kind](recipe, folder)
    except StateError as error:
        folder.start_over(error)
        _STEPS[recipe.kind](recipe, folder)

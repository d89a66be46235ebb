"""What is wrong with run folders, and what repairs it; nothing is changed by looking."""

import os
from dataclasses import dataclass
from pathlib import Path

from closerlook import files
from closerlook.errors import StoreError
from closerlook.runs.folder import RunFolder
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import Recipe, inputs_of
from closerlook.runs.store import Store


@dataclass(frozen=True)
class Inspection:
    """A run as it was found: `damage` costs numbers or work, `notes` are only good to know.

    A finished run that is damaged has to be made again; what is wrong with another one says its repair itself.
    """

    run: str
    done: bool
    damage: tuple[str, ...]
    notes: tuple[str, ...]


def inspect(folder: RunFolder) -> Inspection:
    """Every file of a finished run against its checksum; recipe, state and DONE of another one."""
    done = folder.done
    damage = folder.damage() if done else _of_unfinished(folder)
    notes: list[str] = []
    try:
        recipe = folder.recipe()
    except StoreError as error:
        if not damage:
            damage = [str(error)]
    else:
        damage += _name(folder, recipe)
        notes = _inputs(folder, recipe)
    return Inspection(folder.id, done, tuple(damage), tuple(notes))


def leftovers(root: Path) -> list[Path]:
    """What killed processes left half written below the folder of all runs; a live one may still finish its own."""
    folders = [root, *(folder for folder in root.glob("*/") if folder.is_dir())]
    found = {path for folder in folders for path in files.temporaries(folder)}
    return sorted(path for path in found if not _alive(int(path.suffixes[-2][1:])))


def _of_unfinished(folder: RunFolder) -> list[str]:
    again, found = "its command, started again,", list[str]()
    try:
        folder.settings()
    except StoreError:
        found.append(f"recipe.json is missing or damaged: {again} writes it anew")
    if (folder.path / "DONE").exists():
        found.append(f"DONE is damaged: {again} finishes the step from its last state")
    state = folder.path / "state.safetensors"
    try:
        files.read_tensors(state) if state.exists() else None
    except StoreError:
        found.append(f"state.safetensors is damaged: {again} sets it aside and starts the step from its beginning")
    return found


def _name(folder: RunFolder, recipe: Recipe) -> list[str]:
    name = run_id(recipe)
    if name == folder.id:
        return []
    return [f"its recipe is that of {name}: give the folder that name, or delete it; no command finds it here"]


def _inputs(folder: RunFolder, recipe: Recipe) -> list[str]:
    store = Store(folder.path.parent)
    missing = [run for run in inputs_of(recipe) if not store.folder(run).path.exists()]
    return [f"it was made from {run}, which is not here" for run in missing]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True

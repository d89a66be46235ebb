"""The runs of a store: found by name, told in a line."""

from collections.abc import Collection
from typing import Any

from closerlook.cli.names import known, listed
from closerlook.cli.work import state
from closerlook.errors import StoreError, UsageError
from closerlook.runs.recipe import inputs_of
from closerlook.runs.store import RunFolder, Store


def find(name: str, store: Store) -> RunFolder:
    """The run of that name, or the only one whose name begins so.

    Raises
    ------
    UsageError
        There is none, or there are several.
    """
    if not name:
        raise UsageError("a run has a name; closerlook runs ls lists them")
    names = [folder.id for folder in store.runs()]
    begin = [each for each in names if each.startswith(name)]
    if name in names or len(begin) != 1:
        if len(begin) > 1 and name not in names:
            raise UsageError(f"{name!r} begins the names of {listed(begin)}; write more of it")
        return store.folder(known("run", name, names, f" in {store.root}"))
    return store.folder(begin[0])


def row(folder: RunFolder) -> dict[str, Any]:
    """A run in a line; one whose recipe cannot be read is listed as damaged."""
    try:
        recipe, stands = folder.recipe(), state(folder)
        told: dict[str, Any] = {
            "kind": recipe.kind,
            "state": stands,
            "model": recipe.model.name,
            "data": recipe.data.name,
        }
    except StoreError:
        told = {"kind": folder.id.partition("-")[0], "state": "damaged", "model": None, "data": None}
    return {"run": folder.id, **told, "seconds": folder.seconds()[0]}


def needs(folder: RunFolder, names: Collection[str]) -> bool:
    """Whether a run was made from one of `names`."""
    try:
        return not set(inputs_of(folder.recipe())).isdisjoint(names)
    except StoreError:
        return False

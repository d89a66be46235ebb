"""All run folders: one per recipe, found by name, one writer each."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from closerlook import files
from closerlook.errors import StoreError
from closerlook.runs.folder import RunFolder
from closerlook.runs.identity import identity, run_id
from closerlook.runs.locks import only_one
from closerlook.runs.recipe import Recipe

__all__ = ["RunFolder", "Store", "only_one"]


@dataclass(frozen=True)
class Store:
    """The folder that holds all runs."""

    root: Path

    def folder(self, run: str | Recipe) -> RunFolder:
        """The folder of a run, by name or recipe; it need not exist yet."""
        return RunFolder(self.root / (run if isinstance(run, str) else run_id(run)))

    def create(self, recipe: Recipe) -> RunFolder:
        """The run's folder with its recipe written; a damaged one is written anew, as the folder's name tells it.

        Raises
        ------
        StoreError
            Another recipe has the same eight digits (delete or move one of the two), or another version wrote it.
        """
        folder = self.folder(recipe)
        try:
            folder.settings()
        except StoreError:
            with folder.lock():
                files.write_json(folder.path / "recipe.json", recipe.model_dump(mode="json"))
        if identity(folder.recipe()) != identity(recipe):
            raise StoreError(f"{folder.path} holds another recipe with the same short hash; move that folder away")
        return folder

    def runs(self) -> list[RunFolder]:
        """All run folders, by name, damaged ones too: what has a recipe or a lock, and is no study's."""
        found = {path.parent for name in ("recipe.json", "LOCK") for path in self.root.glob(f"*/{name}")}
        return [RunFolder(path) for path in sorted(found) if not path.name.startswith("study-")]

    def remove(self, run: str) -> None:
        """Delete a run's folder, once no live process works in it.

        Raises
        ------
        StoreError
            There is no such run.
        """
        folder = self.folder(run)
        if not folder.path.is_dir():
            raise StoreError(f"there is no run {run} in {self.root}")
        with folder.lock():
            shutil.rmtree(folder.path)

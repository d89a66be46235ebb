"""Run folders: one writer, DONE last, checksums of everything that must be equal again."""

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from closerlook import files
from closerlook.errors import StoreError
from closerlook.runs.environment import decides_bits, environment
from closerlook.runs.identity import identity, run_id
from closerlook.runs.recipe import ADAPTER, Recipe

# These say when and where a run was made; all else is equal byte for byte when it is made again.
VOLATILE = ("timings.jsonl", "environment.json", "DONE", "LOCK")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one step."""

    path: Path

    @property
    def id(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def done(self) -> bool:
        """Whether the step was finished."""
        return (self.path / "DONE").exists()

    def recipe(self) -> Recipe:
        """The stored recipe.

        Raises
        ------
        StoreError
            Missing, truncated, or written by a newer closerlook.
        """
        path = self.path / "recipe.json"
        if not path.exists():
            raise StoreError(f"{self.path} is no run folder: it has no recipe.json")
        try:
            return ADAPTER.validate_python(files.read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise StoreError(
                f"{path} is not a recipe of this version of closerlook: {where}: {first['msg']}; use the version that "
                "wrote it, or delete its folder"
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; waits for a live process, takes over from a dead one."""
        with (self.path / "LOCK").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def begin(self) -> None:
        """Clear what a killed attempt left half written, and note where this one runs.

        Where it goes on from a state that was made elsewhere, on other versions or another kind of processor, the
        earlier environments stay in the note, and stderr says so: the last bits may differ from a run in one place.
        """
        files.remove_temporaries(self.path)
        path = self.path / "environment.json"
        now, earlier = environment(), list[dict[str, Any]]()
        if path.exists() and (self.path / "state.safetensors").exists():
            before = files.read_json(path)
            earlier = before.pop("earlier", [])
            if decides_bits(before) != decides_bits(now):
                earlier.append(before)
                print(f"{self.id} goes on in another environment; its last bits may differ", file=sys.stderr)
        files.write_json(path, {**now, "earlier": earlier})

    def note_time(self, started: float, cpu: float) -> None:
        """Append how long this attempt took."""
        row = {"wall_s": round(time.time() - started, 3), "cpu_s": round(cpu, 3), "started": round(started, 3)}
        path = self.path / "timings.jsonl"
        earlier = path.read_bytes() if path.exists() else b""
        files.write_bytes(path, earlier + json.dumps(row).encode() + b"\n")

    def finish(self) -> None:
        """Write DONE with the checksums of the other files."""
        files.write_json(self.path / "DONE", self._checksums())

    def damage(self) -> list[str]:
        """What differs from the checksums in DONE: missing or changed files."""
        recorded, present = files.read_json(self.path / "DONE"), self._checksums()
        return [
            f"{name} is {'missing' if name not in present else 'changed'}"
            for name in sorted(recorded)
            if present.get(name) != recorded[name]
        ]

    def seconds(self) -> tuple[float, float]:
        """Wall and CPU seconds over all attempts that came to an end; a killed one notes nothing."""
        path = self.path / "timings.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines]
        return sum(row["wall_s"] for row in rows), sum(row["cpu_s"] for row in rows)

    def result(self, name: str) -> Any:
        """A JSON result of a finished step."""
        return files.read_json(self.path / "results" / f"{name}.json")

    def _checksums(self) -> dict[str, str]:
        paths = [path for path in sorted(self.path.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        return {str(path.relative_to(self.path)): files.sha256(path) for path in paths if path.name not in VOLATILE}


@dataclass(frozen=True)
class Store:
    """The folder that holds all runs."""

    root: Path

    def folder(self, run: str | Recipe) -> RunFolder:
        """The folder of a run, by name or recipe; it need not exist yet."""
        return RunFolder(self.root / (run if isinstance(run, str) else run_id(run)))

    def create(self, recipe: Recipe) -> RunFolder:
        """The run's folder with its recipe written.

        Raises
        ------
        StoreError
            Another recipe has the same eight digits (delete or move one of the two).
        """
        folder = self.folder(recipe)
        stored = folder.path / "recipe.json"
        if not stored.exists():
            folder.path.mkdir(parents=True, exist_ok=True)
            with folder.lock():
                files.write_json(stored, recipe.model_dump(mode="json"))
        elif identity(folder.recipe()) != identity(recipe):
            raise StoreError(f"{folder.path} holds another recipe with the same short hash; move that folder away")
        return folder

    def runs(self) -> list[RunFolder]:
        """All run folders, by name."""
        found = self.root.glob("*/recipe.json") if self.root.exists() else []
        return [RunFolder(path.parent) for path in sorted(found) if not path.parent.name.startswith("study-")]

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


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Refuse when another live process holds `path`; its holder alone writes to the folder that `path` lies in.

    What a killed holder left half written there is cleared first.

    Raises
    ------
    StoreError
        A second command on the same study.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StoreError(
                f"another command works on {path.parent} (process {file.read() or '?'}); wait for it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        files.remove_temporaries(path.parent)
        yield
        file.truncate(0)

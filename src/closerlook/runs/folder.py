"""The folder of one step: DONE last, with checksums of everything that must be equal again."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from closerlook import files
from closerlook.errors import StateError, StoreError
from closerlook.runs.environment import decides_bits, environment
from closerlook.runs.locks import waiting
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
        """Whether the step was finished: DONE holds its checksums. A step with a damaged one is finished again."""
        return "recipe.json" in self._recorded()

    @property
    def repair(self) -> str:
        """What to type when a file of a finished run is damaged."""
        return f"closerlook runs rm {self.id} --runs {self.path.parent}, then the command that made it"

    def recipe(self) -> Recipe:
        """The stored recipe.

        Raises
        ------
        StoreError
            Missing, truncated, or written by a newer closerlook.
        """
        settings = self.settings()
        try:
            return ADAPTER.validate_python(settings)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise StoreError(
                f"{self.path / 'recipe.json'} is not a recipe of this version of closerlook: {where}: {first['msg']}; "
                f"use the version that wrote it, or {self.repair}"
            ) from error

    def settings(self) -> dict[str, Any]:
        """The stored recipe as it was written, by whatever version.

        Raises
        ------
        StoreError
            Missing, or damaged.
        """
        path = self.path / "recipe.json"
        if not path.exists():
            raise StoreError(f"{self.path} is no run folder: it has no recipe.json")
        settings = files.read_json(path)
        if not isinstance(settings, dict):
            raise StoreError(f"{path} holds no recipe; closerlook runs verify names the repair")
        return settings

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; waits for a live process, takes over from a dead one."""
        with waiting(self.path / "LOCK"):
            yield

    def begin(self) -> None:
        """Clear what a killed attempt left half written, and note where this one runs.

        Where it goes on from a state that was made elsewhere, on other versions or another kind of processor, the
        earlier environments stay in the note, and stderr says so: the last bits may differ from a run in one place.
        """
        files.remove_temporaries(self.path)
        now, earlier = environment(), list[dict[str, Any]]()
        before = self.made_in() if (self.path / "state.safetensors").exists() else None
        if before is not None:
            earlier = before.pop("earlier", [])
            if decides_bits(before) != decides_bits(now):
                earlier.append(before)
                print(f"{self.id} goes on in another environment; its last bits may differ", file=sys.stderr)
        files.write_json(self.path / "environment.json", {**now, "earlier": earlier})

    def start_over(self, error: StateError) -> None:
        """Set the state aside from which the step cannot go on, and say so: nothing of it is used."""
        files.set_aside(self.path / "state.safetensors")
        print(f"{self.id} starts from its beginning, its state is set aside: {error}", file=sys.stderr, flush=True)

    def made_in(self) -> dict[str, Any] | None:
        """Where the run was made; None where that is not known, on which nothing else depends."""
        try:
            return dict(files.read_json(self.path / "environment.json"))
        except (StoreError, TypeError, ValueError):
            return None

    def note_time(self, started: float, cpu: float) -> None:
        """Append how long this attempt took."""
        row = {"wall_s": round(time.time() - started, 3), "cpu_s": round(cpu, 3), "started": round(started, 3)}
        path = self.path / "timings.jsonl"
        earlier = path.read_bytes() if path.is_file() else b""
        files.write_bytes(path, earlier + json.dumps(row).encode() + b"\n")

    def seconds(self) -> tuple[float, float]:
        """Wall and CPU seconds over all attempts that came to an end; a killed one notes nothing."""
        try:
            rows = _rows(self.path / "timings.jsonl")
            return sum(float(row["wall_s"]) for row in rows), sum(float(row["cpu_s"]) for row in rows)
        except (StoreError, KeyError, TypeError, ValueError):
            return 0.0, 0.0  # damaged: nobody knows, and nothing depends on it

    def finish(self) -> None:
        """Write DONE with the checksums of the other files."""
        paths = [path for path in sorted(self.path.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        kept = [path for path in paths if path.name not in VOLATILE]
        files.write_json(self.path / "DONE", {str(path.relative_to(self.path)): files.sha256(path) for path in kept})

    def damage(self) -> list[str]:
        """What differs from the checksums in DONE: missing, changed or unreadable files."""
        found = {name: self._fault(name, checksum) for name, checksum in sorted(self._recorded().items())}
        return [f"{name} {fault}" for name, fault in found.items() if fault]

    def result(self, name: str) -> Any:
        """A JSON result of a step; that of a finished one is what the step wrote.

        Raises
        ------
        StoreError
            It is missing, or was changed since.
        """
        return files.read_json(self._sound(f"results/{name}.json"))

    def journal(self) -> list[dict[str, Any]]:
        """The rows that a training noted, one per epoch."""
        return _rows(self._sound("metrics.jsonl"))

    def epochs(self) -> list[dict[str, Any]]:
        """The rows of the epochs that a training finished, without that of its divergence."""
        return [row for row in self.journal() if "diverged" not in row]

    def observations(self) -> list[dict[str, Any]]:
        """The rows that the observers of a training gave; none without any."""
        return _rows(self._sound("observations.jsonl"))

    def _sound(self, name: str) -> Path:
        recorded = self._recorded().get(name)
        fault = recorded and self._fault(name, recorded)
        if fault:
            raise StoreError(f"{self.path / name} {fault}; repair: {self.repair}")
        return self.path / name

    def _fault(self, name: str, checksum: str) -> str | None:
        try:
            return None if files.sha256(self.path / name) == checksum else "is changed"
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"

    def _recorded(self) -> dict[str, str]:
        try:
            recorded = files.read_json(self.path / "DONE")
        except StoreError:
            return {}
        return recorded if isinstance(recorded, dict) else {}


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [dict(json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read: {error}; closerlook runs verify names the repair") from error

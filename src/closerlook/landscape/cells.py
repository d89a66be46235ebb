"""Pieces of a reading that any process may compute: kept in a folder, resumed, shared, equal whoever made them."""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from closerlook import files
from closerlook.errors import StoreError, UsageError

Arrays = Mapping[str, np.ndarray]
_SETTINGS = "reading.json"
_JOINING: ContextVar[bool] = ContextVar("joining", default=False)


@dataclass(frozen=True)
class Cells:
    """Named cells of arrays, in memory without a folder.

    Several processes may fill one folder at the same time: each cell is made by one of them, written in one step, and
    read by all. A killed process leaves its finished cells, and its unfinished one to the others.

    Raises
    ------
    UsageError
        The folder holds cells of a reading with other settings.
    """

    folder: Path | None
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.folder is None:
            return
        path = self.folder / _SETTINGS
        if not path.exists():
            if _JOINING.get():
                raise StoreError(f"there is no reading in {self.folder} to help with")
            files.write_json(path, dict(self.settings))
        held, asked = files.read_json(path), dict(self.settings)
        other = sorted(name for name in held.keys() | asked.keys() if held.get(name) != asked.get(name))
        if other:
            raise UsageError(
                f"{self.folder} holds a reading with other {', '.join(other)}; give this one a folder of its own, or "
                "delete that one"
            )

    def fill(self, names: Sequence[str], make: Callable[[int], Arrays]) -> list[Arrays]:
        """The arrays of every name; what is not there yet is made by ``make(number)``, here or in another process."""
        if self.folder is None:
            return [make(number) for number in range(len(names))]
        with (self.folder / "LOCK").open("a") as lock:
            # First what nobody works on, then what others had in hand: they have finished it, or died.
            for wait in (False, True):
                for number, name in enumerate(names):
                    self._settle(name, lambda number=number: make(number), lock.fileno(), number, wait)  # type: ignore[misc]
            return [self._read(name, lambda number=number: make(number), lock.fileno(), number)  # type: ignore[misc]
                    for number, name in enumerate(names)]  # fmt: skip

    def _settle(self, name: str, make: Callable[[], Arrays], lock: int, number: int, wait: bool) -> None:
        path = self._path(name)
        if path.exists():
            return
        with _held(lock, number, wait) as mine:
            if mine and not path.exists():
                if not (path.parent / _SETTINGS).exists():
                    raise StoreError(f"{path.parent} was removed while it was read; start the command again")
                files.write_arrays(path, make())

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.npz"

    def _read(self, name: str, make: Callable[[], Arrays], lock: int, number: int) -> Arrays:
        try:
            return files.read_arrays(self._path(name))
        except StoreError:  # damaged from outside, or gone: it is made again
            self._path(name).unlink(missing_ok=True)
            self._settle(name, make, lock, number, wait=True)
            return files.read_arrays(self._path(name))


@contextmanager
def joining() -> Iterator[None]:
    """Within it no folder of cells is begun: a helper that comes late raises StoreError instead."""
    token = _JOINING.set(True)
    try:
        yield
    finally:
        _JOINING.reset(token)


def clear(folder: Path) -> None:
    """Remove a folder whose cells are all made; no process that still looks into it makes one again."""
    # The settings go first: a helper that misses a cell looks for them before it makes it.
    (folder / _SETTINGS).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(lock: int, number: int, wait: bool) -> Iterator[bool]:
    # One byte of one file per cell: a record lock ends with its process, and costs no file of its own.
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
    except OSError:
        if wait:
            raise
        yield False
        return
    try:
        yield True
    finally:
        fcntl.lockf(lock, fcntl.LOCK_UN, 1, number)

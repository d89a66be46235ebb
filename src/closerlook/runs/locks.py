"""Who works on a folder: a lock that names its holder, and that ends with it however it ends."""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from closerlook import files
from closerlook.errors import StoreError


@contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Hold `path`; waits for a live holder, and says so on stderr; takes over from a dead one."""

    def wait(holder: str) -> None:
        print(f"{path.parent} is in the hands of process {holder}; waiting for it", file=sys.stderr, flush=True)

    with _held(path, wait):
        yield


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Refuse when another live process holds `path`; its holder alone writes to the folder that `path` lies in.

    What a killed holder left half written there is cleared first.

    Raises
    ------
    StoreError
        A second command on the same study.
    """

    def refuse(holder: str) -> None:
        raise StoreError(f"another command works on {path.parent} (process {holder}); wait for it")

    with _held(path, refuse):
        files.remove_temporaries(path.parent)
        yield


@contextmanager
def _held(path: Path, busy: Callable[[str], None]) -> Iterator[None]:
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy(os.pread(number, 20, 0).decode(errors="replace") or "?")
            fcntl.flock(number, fcntl.LOCK_EX)
        with suppress(OSError):  # the number is for people: a full disk must not take the lock away
            os.truncate(number, 0)
            os.pwrite(number, str(os.getpid()).encode(), 0)
        try:
            yield
        finally:
            os.truncate(number, 0)
    finally:
        os.close(number)

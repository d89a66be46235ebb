"""Writing: a file is the old one or the new one, never half, and what a disk refuses is said with its repair."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from closerlook.errors import DiskFullError, StoreError

_IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: temporary file, fsync, rename, fsync of the folder.

    Raises
    ------
    DiskFullError
        There is no room for it; the old file is still there, and nothing else.
    StoreError
        A folder stands where a file belongs, or a file where a folder does.
    """
    path = Path(path)
    with writing(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)


def append_line(path: str | Path, text: str) -> None:
    """Add a line to a file, which `sync` brings to the disk; a kill or a full disk can leave half of it."""
    path, data = Path(path), f"{text}\n".encode()
    with writing(path, len(data)), path.open("ab") as file:
        file.write(data)


def sync(path: str | Path) -> None:
    """Wait until what was appended to a file is on the disk."""
    with writing(Path(path)):
        _sync(Path(path))


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def writing(path: Path, size: int = 0) -> Iterator[None]:
    """Name the errors of writing `path` by what is to be done about them; any other gets the file's name.

    Raises
    ------
    DiskFullError
        There is no room; `size` bytes were to be written.
    StoreError
        A folder stands where a file belongs, or a file where a folder does.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(_no_room(path, size, error.errno)) from error
        if error.errno in _IN_THE_WAY:
            culprit = next(place for place in (path, *path.parents) if place.exists())
            raise StoreError(
                f"{culprit} is in the way of {path}: a folder where a file belongs, or a file where a folder does; "
                "move it away and start the same command again"
            ) from error
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


def _no_room(path: Path, size: int, number: int) -> str:
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    full = "the disk of {} is full" if number == errno.ENOSPC else "the quota on the disk of {} is used up"
    needed = f"{path.name} needs {size:,} bytes, " if size else ""
    free = shutil.disk_usage(folder).free
    return (
        f"{full.format(folder)}: {needed}{free:,} are free; make room and start the same command again, which goes on "
        "from what is finished"
    )


def set_aside(path: str | Path) -> Path:
    """Rename what cannot be used to a hidden name beside it; returns that name."""
    aside = Path(path).with_name(f".{Path(path).name}.unreadable")
    shutil.rmtree(aside, ignore_errors=True)  # a folder would not be replaced, an earlier file is
    return Path(path).replace(aside)


def remove_temporaries(folder: str | Path) -> None:
    """Delete what killed writers left half written in `folder` and the folders in it; no other may write there now."""
    for path in temporaries(folder):
        path.unlink(missing_ok=True)


def temporaries(folder: str | Path) -> list[Path]:
    """Files that are being written, or were when their writer was killed, in `folder` and the folders in it."""
    found = [path for pattern in (".*.tmp", "*/.*.tmp") for path in Path(folder).glob(pattern)]
    return [path for path in found if path.suffixes[-2:-1] and path.suffixes[-2][1:].isdecimal()]  # of a process

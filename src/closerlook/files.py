"""Files that are either old or new, never half: atomic writes, checksums, loading that cannot run code."""

import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from closerlook.errors import DiskFullError, StoreError

_REPAIR = "if it belongs to a run, closerlook runs verify names the repair"
_CHECKSUM = "sha256"
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


def to_json(value: Any) -> str:
    """Readable JSON with sorted keys and one trailing newline: equal values give equal bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    write_bytes(path, to_json(value).encode())


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or truncated one is named with its repair."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"there is no {path}; {_REPAIR}") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, or a number without end
        raise StoreError(f"{path} is not readable JSON ({error}); {_REPAIR}") from error


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as npz, atomically; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    plain: dict[str, Any] = {name: np.asarray(array) for name, array in sorted(arrays.items())}
    np.savez(buffer, **plain)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read an npz of plain arrays (pickled objects are refused); a truncated one is named with its repair."""
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} is not a readable npz ({error}); {_REPAIR}") from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any] | None = None) -> None:
    """Write named tensors as safetensors, atomically, in logical (contiguous) order.

    `note` is stored as JSON under one metadata key, with a checksum of the tensors in it: the format keeps several keys
    in no fixed order, so that equal content would give unequal bytes.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"note": json.dumps({**(note or {}), _CHECKSUM: _checksum(plain)}, sort_keys=True)}
    write_bytes(path, safetensors.torch.save(plain, metadata))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file: its tensors and its note; what `write_tensors` wrote is checked to the last bit.

    Raises
    ------
    StoreError
        It is missing, truncated, changed, or no safetensors at all.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            note = dict(json.loads((stored.metadata() or {}).get("note", "{}")))
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read as safetensors: {error}; {_REPAIR}") from error
    checksum = note.pop(_CHECKSUM, None)  # other tools leave none
    if checksum is not None and checksum != _checksum(tensors):
        raise StoreError(f"{path} holds other numbers than were written: its checksum does not fit; {_REPAIR}")
    return tensors, note


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(text: str) -> str:
    """SHA-256 of a text, as hex."""
    return hashlib.sha256(text.encode()).hexdigest()

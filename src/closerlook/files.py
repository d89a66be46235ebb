"""Files that are either old or new, never half: atomic writes, checksums, loading that cannot run code."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from closerlook.errors import StoreError, UsageError


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: temporary file, fsync, rename, fsync of the folder."""
    path = Path(path)
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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_temporaries(folder: str | Path) -> None:
    """Delete what killed writers left half written in `folder` and the folders in it; no other may write there now."""
    for pattern in (".*.tmp", "*/.*.tmp"):
        for path in Path(folder).glob(pattern):
            if path.suffixes[-2:-1] and path.suffixes[-2][1:].isdigit():  # ours carry a process number
                path.unlink(missing_ok=True)


def to_json(value: Any) -> str:
    """Readable JSON with sorted keys and one trailing newline: equal values give equal bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    write_bytes(path, to_json(value).encode())


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or truncated one is named with its repair."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"there is no {path}; run the step again") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is not readable JSON ({error}); delete it and run the step again") from error


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
        raise StoreError(f"{path} is not a readable npz ({error}); delete it and run the step again") from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any] | None = None) -> None:
    """Write named tensors as safetensors, atomically, in logical (contiguous) order.

    `note` is stored as JSON under one metadata key: the format keeps several keys in no fixed order, so
    that equal content would give unequal bytes.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = None if note is None else {"note": json.dumps(note, sort_keys=True)}
    write_bytes(path, safetensors.torch.save(plain, metadata))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file: its tensors and its note."""
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            note = json.loads((stored.metadata() or {}).get("note", "{}"))
    except (safetensors.SafetensorError, OSError) as error:
        raise StoreError(
            f"{path} cannot be read as safetensors: {error}; if it belongs to a run, delete it and start that run again"
        ) from error
    return tensors, note


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Load a state dict from `.safetensors`, or from `.pt`, `.pth`, `.bin` with ``weights_only=True``.

    Raises
    ------
    UsageError
        The file is missing, or holds something other than tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no checkpoint at {path}; give the path of a .safetensors or .pt file")
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(
            f"{path} cannot be loaded without running code ({type(error).__name__}); save it again with "
            "torch.save(model.state_dict(), path)"
        ) from error
    for key in ("state_dict", "model_state_dict", "model", "ema"):
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    if not isinstance(stored, Mapping) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise UsageError(f"{path} holds no state dict; save it with torch.save(model.state_dict(), path)")
    return dict(stored)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(text: str) -> str:
    """SHA-256 of a text, as hex."""
    return hashlib.sha256(text.encode()).hexdigest()

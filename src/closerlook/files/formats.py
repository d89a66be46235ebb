"""JSON, npz and safetensors: equal content has equal bytes, damage is found, and nothing that is read can run code."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from closerlook.errors import StoreError
from closerlook.files.disk import write_bytes

_REPAIR = "if it belongs to a run, closerlook runs verify names the repair"
_CHECKSUM = "sha256"


def to_json(value: Any) -> str:
    """Readable JSON with sorted keys and one trailing newline: equal values give equal bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, atomically; bytes of a file's name that are no text come back as they were."""
    write_bytes(path, to_json(value).encode(errors="backslashreplace"))


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
    except Exception as error:  # there is little that a damaged zip does not make numpy raise
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

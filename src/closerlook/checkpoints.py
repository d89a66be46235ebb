"""State dicts from what people have: files of PyTorch and safetensors, folders of shards; nothing in them can run code.

``.safetensors`` files, files of ``torch.save`` (any other ending), ``*.index.json`` with a ``weight_map`` from names to
shards, and folders that hold one of these under the name that Hugging Face gives it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from closerlook import files
from closerlook.errors import CheckpointError, StoreError

# Under which keys training scripts save a state dict, in the order in which they are taken: averages come last.
ENTRIES = (
    "state_dict", "model_state_dict", "model_state", "model", "params", "net",
    "ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema",
)  # fmt: skip
_NAMES_IN_A_FOLDER = tuple(
    f"{stem}{ending}"
    for ending in (".safetensors.index.json", ".safetensors", ".bin.index.json", ".bin")
    for stem in ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model")
)
_REPAIR = "load it where you trust it and save torch.save(model.state_dict(), path)"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and where they are from: the path, the entry that was taken, the content's hash."""

    tensors: dict[str, Tensor]
    origin: str


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The state dict of a checkpoint.

    A file that holds several (weights and their average, say) gives the first of `ENTRIES`; the origin names the entry
    and the others.

    Raises
    ------
    CheckpointError
        It is missing, empty, truncated, no checkpoint, needs code to be loaded, or names a shard outside its folder.

    Examples
    --------
    >>> torch.save({"epoch": 3, "model": {"weight": torch.ones(2)}}, "a.pt")
    >>> read_checkpoint("a.pt").tensors
    {'weight': tensor([1., 1.])}
    """
    path = _file_in(Path(path))
    if path.name.endswith(".index.json"):
        return _sharded(path)
    tensors, entry = (_safetensors(path), "") if path.suffix == ".safetensors" else _entry(_unpickled(path), path)
    meta = [name for name, value in tensors.items() if value.is_meta]
    if meta:
        raise CheckpointError(f"{path} holds no numbers for {meta[0]} (a tensor of the meta device); save it again")
    return Checkpoint(tensors, f"{path}{entry} sha256:{files.sha256(path)[:12]}")


def _file_in(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}; give the path of a .safetensors or .pt file")
    found = next((path / name for name in _NAMES_IN_A_FOLDER if (path / name).is_file()), None)
    if found is None:
        inside = sorted(item.name for item in path.iterdir()) if path.is_dir() else []
        raise CheckpointError(
            f"{path} is no file, and holds no {' or '.join(_NAMES_IN_A_FOLDER[:2])}; give the path of one file"
            + (f" (there is {', '.join(inside[:6])})" if inside else "")
        )
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return files.read_tensors(path)[0]
    except StoreError as error:
        raise CheckpointError(str(error)) from error


def _sharded(path: Path) -> Checkpoint:
    """The tensors that an index names, each from its shard in the same folder."""
    places = _weight_map(path)
    tensors: dict[str, Tensor] = {}
    hashes = [files.sha256(path)]
    for shard in sorted(set(places.values())):
        stored = read_checkpoint(_inside(path, shard))
        wanted = [name for name, place in places.items() if place == shard]
        lost = [name for name in wanted if name not in stored.tensors]
        if lost:
            raise CheckpointError(f"{path} looks for {lost[0]} in {shard}, which has it not; get the files again")
        tensors |= {name: stored.tensors[name] for name in wanted}
        hashes.append(stored.origin.rpartition(":")[2])
    return Checkpoint({name: tensors[name] for name in places}, f"{path} sha256:{files.digest(' '.join(hashes))[:12]}")


def _weight_map(path: Path) -> dict[str, str]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no readable index ({error}); get it again") from error
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise CheckpointError(f"{path} has no weight_map from names to shards; give the path of one file")
    return places


def _inside(index: Path, shard: str) -> Path:
    # A name and nothing else: an index must not make us read files elsewhere, nor indices in a circle.
    if shard != Path(shard).name or "\\" in shard or not shard.endswith((".safetensors", ".bin", ".pt", ".pth")):
        raise CheckpointError(f"{index} names the shard {shard!r}, which is no file beside it; do not use this index")
    if not (index.parent / shard).is_file():
        raise CheckpointError(f"{index} names the shard {shard}, which is not there; get the missing file")
    return index.parent / shard


def _unpickled(path: Path) -> Any:
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty: it was never written to its end; get it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path} cannot be loaded: {_why(str(error))}") from error


def _why(message: str) -> str:
    needed = re.search(r"GLOBAL ([\w.]+)|[Uu]nsupported (?:class|global|function|type) ([\w.]+)", message)
    if needed is not None:
        return f"it needs code ({needed[1] or needed[2]}), and no checkpoint is let run any; {_REPAIR}"
    if "TorchScript" in message:
        return f"it is a TorchScript archive, which holds code; {_REPAIR}"
    return "it is no file of torch.save, or was truncated or damaged; give a .safetensors or .pt file, or get it again"


def _entry(stored: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict in what was saved, and the key under which it was found."""
    taken: list[str] = []
    while isinstance(stored, Mapping) and not _is_state(stored):
        found = [key for key in ENTRIES if isinstance(stored.get(key), Mapping) and stored[key]]
        if not found:
            break
        others = f" (also there: {', '.join(found[1:])})" if found[1:] else ""
        taken.append(found[0] + others)
        stored = stored[found[0]]
    if not isinstance(stored, Mapping) or not _is_state(stored):
        raise CheckpointError(f"{path} holds no state dict, but {_described(stored)}; {_REPAIR}")
    tensors = {name: value for name, value in stored.items() if isinstance(value, Tensor)}
    return tensors, "".join(f" entry {key}" for key in taken)


def _is_state(stored: Mapping[Any, Any]) -> bool:
    # get_extra_state may have put anything under its own name; it is no weight.
    rest = [value for name, value in stored.items() if not str(name).endswith("_extra_state")]
    return bool(rest) and all(isinstance(value, Tensor) for value in rest)


def _described(stored: Any) -> str:
    if not isinstance(stored, Mapping):
        return f"a {type(stored).__name__}"
    keys = [str(key) for key in stored]
    return f"a dict with {', '.join(keys[:6])}{' ...' if len(keys) > 6 else ''}" if keys else "an empty dict"

"""Activations of one model on one loader, in memory or in a file that is named by what they depend on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from closerlook import files
from closerlook.activations.names import Layer
from closerlook.activations.reading import Reader, reading
from closerlook.activations.rows import Conv, Handling, Tokens
from closerlook.batches import BatchFn, Loader, batches_of
from closerlook.errors import LoaderError, StoreError


@dataclass(frozen=True, eq=False)
class Activations:
    """Rows [m, p] by layer of one model on one loader; with ``conv="spectral"`` maps [n, c, h, w].

    `n` counts the examples; `data` is the hash of the batches in their order: two sets of activations can be compared
    when it is the same.
    """

    rows: Mapping[str, Tensor]
    layers: tuple[Layer, ...]
    handling: Handling
    n: int
    data: str

    def save(self, path: str | Path) -> None:
        """Write a safetensors file that `load` reads."""
        layers = [{**asdict(layer), "dtype": str(layer.dtype).removeprefix("torch.")} for layer in self.layers]
        note = {"layers": layers, "handling": asdict(self.handling), "n": self.n, "data": self.data}
        files.write_tensors(path, self.rows, note)

    @classmethod
    def load(cls, path: str | Path) -> "Activations":
        """The activations that `save` wrote.

        Raises
        ------
        StoreError
            The file is damaged, or holds something else.
        """
        rows, note = files.read_tensors(path)
        try:
            layers = tuple(
                Layer(**{**each, "shape": tuple(each["shape"]), "dtype": getattr(torch, each["dtype"])})
                for each in note["layers"]
            )
            own = {layer.name: rows[layer.name] for layer in layers}
            return cls(own, layers, Handling(**note["handling"]), note["n"], note["data"])
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} holds no activations ({error!r}); read them again") from error


def activations(
    model: nn.Module,
    loader: Loader,
    layers: Sequence[str] = ("*",),
    *,
    conv: Conv = "mean",
    tokens: Tokens = "mean",
    cache: str | Path | None = None,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> Activations:
    """Outputs of chosen layers on every example of a loader, read in eval mode and fp32; the model stays as it was.

    Parameters
    ----------
    layers
        Patterns ``NAME[#CALL][:OUTPUT]`` such as ``"features.*"``, ``"*relu*"``, ``"block.relu#2"``, ``"lstm:1.0"``.
        A layer is read after whatever its own module does: name the activation module for values after it.
    conv, tokens
        What becomes of maps and of token sequences: see :class:`closerlook.activations.Handling`.
    cache
        A folder. The file in it is named by the hash of weights, architecture, batches, layers, handling and of what
        the first batch gives, so it is reused only where all of these are the same.

    Raises
    ------
    LayerError
        A pattern matches no layer, or one whose output cannot be compared.
    LoaderError
        A one-shot iterator, no batch, or (with `cache`) other batches in the second pass.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = activations(net, [torch.ones(6, 4), torch.zeros(2, 4)], ["1", "2"])
    >>> {name: tuple(rows.shape) for name, rows in found.rows.items()}
    {'1': (8, 3), '2': (8, 2)}
    """
    with reading(model, layers, Handling(conv, tokens), batch_fn=batch_fn, device=device) as reader:
        if cache is None:
            return _read(reader, loader)
        data = _Digest()
        for number, batch in enumerate(batches_of(loader)):
            if number == 0:
                key = _key(reader, batch)
            data.add(batch)
        path = Path(cache) / f"activations-{files.digest(key + data.text)[:16]}.safetensors"
        if path.exists():
            return Activations.load(path)
        found = _read(reader, loader)
        if found.data != data.text:
            raise LoaderError("the loader gave other batches in its second pass: fix its order and its augmentation")
        found.save(path)
        return found


def _read(reader: Reader, loader: Loader) -> Activations:
    parts: dict[str, list[Tensor]] = {}
    data, n = _Digest(), 0
    for number, batch in enumerate(batches_of(loader)):
        if number == 0:
            reader.start(batch)
        data.add(batch)
        rows = reader.rows(batch)
        n += reader.n
        for name, value in rows.items():
            parts.setdefault(name, []).append(value.cpu())
    rows = {name: torch.cat(values) for name, values in parts.items()}
    return Activations(rows, reader.layers, reader.handling, n, data.text)


def _key(reader: Reader, batch: Any) -> str:
    reader.start(batch)
    digest = _Digest()
    digest.add(reader.model.state_dict())
    digest.add(reader.rows(batch))
    return digest.text + repr(reader.model) + repr(reader.handling) + repr(reader.layers)


class _Digest:
    """SHA-256 of tensors with their names, shapes and types."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, value: Any) -> None:
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            self._hash.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
            self._hash.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            for name in sorted(value, key=str):
                self._hash.update(str(name).encode())
                self.add(value[name])
        elif isinstance(value, tuple | list):
            for item in value:
                self.add(item)
        else:
            self._hash.update(repr(value).encode())

    @property
    def text(self) -> str:
        return self._hash.hexdigest()

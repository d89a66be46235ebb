"""CIFAR-10 from its official python-version files, read by an unpickler that can build nothing but arrays."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from closerlook.data.lookup import missing, read_first
from closerlook.data.source import Preparation, Source
from closerlook.errors import UsageError
from closerlook.files import sha256

FOLDER = "cifar-10-batches-py"
FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
WAYS_OUT = (
    "unpack cifar-10-python.tar.gz (https://www.cs.toronto.edu/~kriz/cifar.html) and name the folder: "
    "--data-dir FOLDER, or CLOSERLOOK_DATA=FOLDER",
    "use data that are fetched: --data fashion",
)
RESOLUTIONS = (32, 16)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def cifar10(resolution: int | None = None, data_dir: str | Path | None = None) -> Source:
    """CIFAR-10 as images [n, 3, s, s] normalised per channel; `resolution` s is 32 (default) or 16 (2x2 means).

    The six files of the python version are looked for as :mod:`closerlook.data.lookup` says, under the folder's
    official name ``cifar-10-batches-py``. They are pickles; no code in them is ever run. Nothing is fetched.

    Raises
    ------
    UsageError
        Another resolution; or, in a folder that the user named, a file that is damaged or holds something else.
    DataMissingError
        The files are in none of the places.

    References
    ----------
    Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    resolution = RESOLUTIONS[0] if resolution is None else resolution
    if resolution not in RESOLUTIONS:
        raise UsageError(f"cifar10 has resolutions {', '.join(map(str, RESOLUTIONS))}, not {resolution}")
    found = read_first(FOLDER, FILES, data_dir, _read)
    if found is None:
        raise missing(FOLDER, data_dir, WAYS_OUT)
    images, labels = zip(*found[1], strict=True)
    return Source(
        train_inputs=torch.from_numpy(np.concatenate(images[:-1])),
        train_targets=torch.from_numpy(np.concatenate(labels[:-1])),
        test_inputs=torch.from_numpy(images[-1].copy()),
        test_targets=torch.from_numpy(labels[-1]),
        classes=10,
        name="cifar10",
        prepare=Preparation(MEAN, STD, halve=resolution == 16),
    )


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles lists, dicts, bytes and numbers, and NumPy arrays; any other global in the file is refused."""

    _known = {  # noqa: RUF012
        # Named as Python 2 with an old NumPy wrote them; resolved here, so nothing is imported by name.
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """One of the three names that an array needs."""
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs") from None


def _read(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    return [_batch(folder / file) for file in FILES]


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 3, 32, 32] and labels [n] of one file."""
    try:
        stored = ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        images, labels = stored[b"data"].reshape(-1, 3, 32, 32), np.array(stored[b"labels"], dtype=np.int64)
        if images.dtype != np.uint8 or labels.shape != (len(images),) or not set(labels) <= set(range(10)):
            raise ValueError(f"{images.dtype} images {images.shape} with labels {labels.shape}")
    except Exception as error:  # a damaged pickle can raise anything
        raise UsageError(f"{path} is not a CIFAR-10 batch: {error} (SHA-256 {sha256(path)})") from error
    return images, labels

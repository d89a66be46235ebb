"""Scikit-learn's handwritten digits: 1,797 real grey images of 8x8, without any file to find."""

from pathlib import Path

import torch

from closerlook.data.seeds import permutation
from closerlook.data.source import Source
from closerlook.errors import UsageError

TEST = 360
MEAN, STD = 4.8842, 6.0168


def digits(resolution: int | None = None, data_dir: str | Path | None = None) -> Source:
    """The digits as images [n, 1, 8, 8] normalised to mean 0 and standard deviation 1 over all pixels.

    The data have no official test part: the same 360 images, drawn once, are the test part here.

    Raises
    ------
    UsageError
        A resolution other than 8, or a `data_dir`: there are no files.

    References
    ----------
    Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI machine learning repository.
    """
    if resolution not in (None, 8) or data_dir is not None:
        raise UsageError(f"digits are 8x8 and come with scikit-learn; got resolution {resolution}, data_dir {data_dir}")
    # Here, because it takes longer to import than everything else in this package's data.
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = ((torch.from_numpy(values).float() - MEAN) / STD).reshape(-1, 1, 8, 8)
    targets = torch.from_numpy(labels).long()
    order = permutation(len(targets), 0)
    test, train = order[:TEST], order[TEST:]
    return Source(images[train], targets[train], images[test], targets[test], classes=10, name="digits")

"""A profile from every image at every point."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from closerlook.landscape.cells import Arrays, Cells
from closerlook.landscape.certify import Certificate
from closerlook.landscape.intervals import standard_error
from closerlook.landscape.metrics import covariance_of, means
from closerlook.landscape.reader import Reader

Means = Mapping[str, float]
IMAGES = "images_for_statistics"


@dataclass(frozen=True, eq=False)
class Read:
    """What a reading found at the `chosen` points of the grid; names as in `closerlook.Profile`, without error."""

    chosen: np.ndarray
    values: Mapping[str, np.ndarray]
    errors: Mapping[str, np.ndarray]
    covariance: Mapping[str, np.ndarray]
    n: Mapping[str, int]
    images: Mapping[str, np.ndarray]
    ends: tuple[Means, Means]
    evaluations: int
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    precision_errors: Mapping[str, float] = field(default_factory=dict)


def read_whole(reader: Reader, cells: Cells, coefficients: np.ndarray) -> Read:
    """Every split at every point, and the two ends with their own buffers."""

    def point(number: int) -> Arrays:
        images = reader.place(coefficients[number])
        return {**reader.values(), IMAGES: np.array(images)}

    def own(number: int) -> Arrays:
        return reader.values() if reader.place_own(-number) else {}

    count = len(coefficients)
    found = cells.fill([f"point-{number:04d}" for number in range(count)], point)
    ends = cells.fill(["end-0", "end-1"], own)
    matrices = {name: np.stack([arrays[name] for arrays in found]) for name in found[0] if name != IMAGES}
    n = {split: matrices[f"{split}_loss"].shape[1] for split in reader.splits}
    values = {name: matrix.mean(1) for name, matrix in matrices.items()}
    read = sum(len(arrays[f"{split}_loss"]) for arrays in (*found, *ends) if arrays for split in reader.splits)
    return Read(
        np.arange(count), values,
        {name: np.array([standard_error(row) for row in matrix]) for name, matrix in matrices.items()},
        {name: covariance_of(matrix) for name, matrix in matrices.items()},
        n, {split: np.full(count, total) for split, total in n.items()}, (means(ends[0]), means(ends[1])),
        read + sum(int(arrays[IMAGES]) for arrays in found),
        precision_errors=_precision(reader, cells, coefficients, values),
    )  # fmt: skip


def _precision(
    reader: Reader, cells: Cells, coefficients: np.ndarray, values: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """The largest difference of each mean from full precision, at the ends and the highest point."""
    if reader.feed.autocast is None:
        return {}
    first = f"{next(iter(reader.splits))}_loss"
    chosen = sorted({0, int(np.argmax(values[first])), len(coefficients) - 1})
    full = reader.in_full_precision()

    def point(number: int) -> Arrays:
        full.place(coefficients[chosen[number]])
        return full.values()

    found = cells.fill([f"full-precision-{number:04d}" for number in chosen], point)
    return {
        name: max(abs(float(arrays[name].mean() - values[name][at])) for arrays, at in zip(found, chosen, strict=True))
        for name in values
    }

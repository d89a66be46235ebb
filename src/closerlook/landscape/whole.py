"""A profile from every image at every point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from closerlook.landscape.cells import Arrays, Cells
from closerlook.landscape.certify import Certificate
from closerlook.landscape.intervals import standard_error
from closerlook.landscape.metrics import covariance_of, largest_differences, means
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

    count = len(coefficients)
    found = cells.fill([f"point-{number:04d}" for number in range(count)], point)
    ends = own_ends(reader, cells)
    matrices = {name: np.stack([arrays[name] for arrays in found]) for name in found[0] if name != IMAGES}
    n = {split: matrices[f"{split}_loss"].shape[1] for split in reader.splits}
    values = {name: matrix.mean(1) for name, matrix in matrices.items()}
    return Read(
        np.arange(count), values,
        {name: np.array([standard_error(row) for row in matrix]) for name, matrix in matrices.items()},
        {name: covariance_of(matrix) for name, matrix in matrices.items()},
        n, {split: np.full(count, total) for split, total in n.items()}, (means(ends[0]), means(ends[1])),
        images_in(reader, (*found, *ends)),
        precision_errors=_precision(reader, cells, coefficients, values),
    )  # fmt: skip


def own_ends(reader: Reader, cells: Cells) -> Sequence[Arrays]:
    """Values of every split at both ends with their own buffers; nothing of an end that came without usable ones."""
    return cells.fill(["end-0", "end-1"], lambda number: reader.values() if reader.place_own(-number) else {})


def images_in(reader: Reader, read: Sequence[Arrays]) -> int:
    """Forward passes of an image behind these values, those for statistics included."""
    losses = sum(len(arrays[f"{split}_loss"]) for arrays in read if arrays for split in reader.splits)
    return losses + sum(int(arrays.get(IMAGES, 0)) for arrays in read)


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
    low = [{name: float(array[at]) for name, array in values.items()} for at in chosen]
    return largest_differences(low, [{name: float(arrays[name].mean()) for name in values} for arrays in found])

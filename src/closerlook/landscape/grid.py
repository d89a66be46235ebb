"""Cells of a plane: mean metrics, each cell read once, on the same images."""

from collections.abc import Sequence

import numpy as np

from closerlook.landscape.cells import Arrays, Cells
from closerlook.landscape.metrics import largest_differences
from closerlook.landscape.reader import Reader
from closerlook.landscape.refine import Cell, coarse_first


class GridReader:
    """Mean metrics of cells of a plane, each read once."""

    def __init__(self, reader: Reader, cells: Cells, coefficients: np.ndarray) -> None:
        self.reader, self.cells, self.coefficients = reader, cells, coefficients
        self.found: dict[Cell, Arrays] = {}

    def metrics(self, wanted: Sequence[Cell]) -> list[dict[str, float]]:
        """Mean metrics of the wanted cells."""
        self.found |= dict(zip(wanted, self._read(self.reader, "cell", wanted), strict=True))
        return [_means(self.found[cell]) for cell in wanted]

    def all(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """All cells, coarse ones first; and that all were read."""
        rows, columns, _ = self.coefficients.shape
        order = coarse_first(rows, columns)
        found = dict(zip(order, self.metrics(order), strict=True))
        grid = [[found[i, j] for j in range(columns)] for i in range(rows)]
        values = {name: np.array([[cell[name] for cell in row] for row in grid]) for name in grid[0][0]}
        return values, np.ones((rows, columns), dtype=bool)

    def n(self) -> dict[str, int]:
        """Images of each split."""
        first = next(iter(self.found.values()))
        return {split: int(first[f"{split}_n"]) for split in self.reader.splits}

    def precision_errors(self) -> dict[str, float]:
        """The largest difference from full precision at the lowest and the highest cell that were read."""
        if self.reader.feed.autocast is None:
            return {}
        loss = f"{next(iter(self.reader.splits))}_loss"
        ordered = sorted(self.found, key=lambda cell: float(self.found[cell][loss]))
        chosen = [ordered[0], ordered[-1]]
        full = self._read(self.reader.in_full_precision(), "full-precision", chosen)
        low = [_means(self.found[cell]) for cell in chosen]
        return largest_differences(low, [_means(arrays) for arrays in full])

    def _read(self, reader: Reader, kind: str, wanted: Sequence[Cell]) -> list[Arrays]:
        def cell(number: int) -> Arrays:
            reader.place(self.coefficients[wanted[number]])
            values = reader.values()
            counts = {f"{split}_n": np.array(len(values[f"{split}_loss"])) for split in reader.splits}
            return {**{name: np.array(array.mean()) for name, array in values.items()}, **counts}

        return self.cells.fill([f"{kind}-{i:03d}-{j:03d}" for i, j in wanted], cell)


def _means(arrays: Arrays) -> dict[str, float]:
    return {name: float(array) for name, array in arrays.items() if not name.endswith("_n")}

"""A grid read coarse to fine: where the surface is as straight as the tolerance asks, it is interpolated.

Losses are looked at on a logarithmic scale, as surfaces are drawn: a tolerance of 0.05 is 5 % of the loss.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from closerlook.landscape.intervals import Array
from closerlook.landscape.metrics import is_loss

Cell = tuple[int, int]  # row and column
Read = Callable[[Sequence[Cell]], Sequence[Mapping[str, float]]]


def strides(rows: int, columns: int) -> tuple[int, int]:
    """Steps of the coarsest grid down and right: 4, 2 or 1, where whole steps fit and three nodes are left.

    Examples
    --------
    >>> strides(21, 15)
    (4, 2)
    """
    down, right = (
        max(step for step in (1, 2, 4) if step == 1 or ((n - 1) % step == 0 and n > 2 * step)) for n in (rows, columns)
    )
    return down, right


def coarse_first(rows: int, columns: int) -> list[Cell]:
    """All cells of a grid, those of coarser grids before those of finer ones."""
    steps = strides(rows, columns)
    cells: dict[Cell, None] = {}
    for level in range(3):
        down, right = (max(step >> level, 1) for step in steps)
        cells |= dict.fromkeys((i, j) for i in range(0, rows, down) for j in range(0, columns, right))
    return list(cells)


def refine(rows: int, columns: int, read: Read, tolerance: float) -> tuple[dict[str, Array], np.ndarray]:
    """Metrics on the whole grid [rows, columns], and which cells were read; the others are interpolated.

    A block of four neighbouring nodes is bent when the second differences at its corners say that the logarithm of a
    loss in its middle lies more than `tolerance` off the interpolation (second differences d_x, d_y leave
    (|d_x| + |d_y|) / 8 there). The new nodes of bent blocks are read, those of the others are not.
    """
    step, inner = (0, 0), strides(rows, columns)
    wanted = np.ones((len(range(0, rows, inner[0])), len(range(0, columns, inner[1]))), dtype=bool)
    known = np.zeros((rows, columns), dtype=bool)
    grids: dict[str, Array] = {}
    found: dict[Cell, Mapping[str, float]] = {}
    while step != inner:
        cells = [(int(i) * inner[0], int(j) * inner[1]) for i, j in np.argwhere(wanted)]
        new = read(cells) if cells else []
        found |= zip(cells, new, strict=True)
        grids = _with(grids, wanted, new)
        known[tuple(np.array(cells, dtype=int).reshape(-1, 2).T)] = True
        step, inner = inner, (max(inner[0] // 2, 1), max(inner[1] // 2, 1))
        if step != inner:
            factor = (step[0] // inner[0], step[1] // inner[1])
            wanted = _bent(grids, factor, tolerance) & ~known[:: inner[0], :: inner[1]]
            grids = {name: _finer(grid, factor) for name, grid in grids.items()}
    values = {name: np.exp(grid) if is_loss(name) else grid for name, grid in grids.items()}
    for cell, metrics in found.items():  # what was read, to the last bit
        for name, value in metrics.items():
            values[name][cell] = value
    return values, known


def _with(grids: dict[str, Array], wanted: np.ndarray, new: Sequence[Mapping[str, float]]) -> dict[str, Array]:
    """The grids with the values that were read in the wanted cells; losses as logarithms."""
    if not new:
        return grids
    result = {}
    for name in new[0]:
        values = np.array([metrics[name] for metrics in new])
        with np.errstate(divide="ignore"):
            result[name] = grids[name] if name in grids else np.empty(wanted.shape)
            result[name][wanted] = np.log(values) if is_loss(name) else values
    return result


def _bent(grids: Mapping[str, Array], factor: tuple[int, int], tolerance: float) -> np.ndarray:
    """The nodes of the finer grid that lie in a bent block."""
    nodes = next(iter(grids.values())).shape
    finer = np.zeros([(n - 1) * f + 1 for n, f in zip(nodes, factor, strict=True)], dtype=bool)
    for name, grid in grids.items():
        if is_loss(name):
            with np.errstate(invalid="ignore"):
                off = (_second(grid) + _second(grid.T).T) / 8
            corners = np.stack([off[:-1, :-1], off[1:, :-1], off[:-1, 1:], off[1:, 1:]]).max(0)
            for i, j in np.argwhere(~(corners <= tolerance)):  # also where a loss is no number
                top, left = i * factor[0], j * factor[1]
                finer[top : top + factor[0] + 1, left : left + factor[1] + 1] = True
    return finer


def _second(grid: Array) -> Array:
    """Absolute second differences down the columns; those of the outermost rows are their neighbours'."""
    inside = np.abs(grid[2:] - 2 * grid[1:-1] + grid[:-2])
    return np.concatenate([inside[:1], inside, inside[-1:]])


def _finer(grid: Array, factor: tuple[int, int]) -> Array:
    for axis, f in enumerate(factor):
        if f == 2:
            n = grid.shape[axis]
            finer = np.empty([2 * n - 1 if each == axis else size for each, size in enumerate(grid.shape)])
            into, source = np.moveaxis(finer, axis, 0), np.moveaxis(grid, axis, 0)
            into[::2] = source
            with np.errstate(invalid="ignore"):
                into[1::2] = (source[1:] + source[:-1]) / 2
            grid = finer
    return grid

"""Grids read coarse to fine: every cell that is read is exact, the others are as close as the tolerance."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closerlook.landscape.refine import Cell, coarse_first, refine, strides


def bowl(rows: int, columns: int, bend: float) -> np.ndarray:
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    return np.exp(bend * (x**2 + 0.5 * y**2) + 0.3 * x - 1)


class Grid:
    def __init__(self, losses: np.ndarray) -> None:
        self.losses, self.read = losses, list[Cell]()

    def __call__(self, cells: Sequence[Cell]) -> list[dict[str, float]]:
        self.read += cells
        return [{"train_loss": self.losses[cell], "train_accuracy": 1 / (1 + self.losses[cell])} for cell in cells]


@given(st.integers(2, 40), st.integers(2, 40))
def test_coarse_cells_come_first_and_every_cell_comes_once(rows: int, columns: int) -> None:
    cells = coarse_first(rows, columns)
    assert sorted(cells) == [(i, j) for i in range(rows) for j in range(columns)]
    down, right = strides(rows, columns)
    first = cells[: len(range(0, rows, down)) * len(range(0, columns, right))]
    assert all(i % down == 0 and j % right == 0 for i, j in first)
    assert {(0, 0), (rows - 1, columns - 1), (0, columns - 1)} <= set(first)


@pytest.mark.parametrize("shape", [(21, 21), (15, 21), (9, 13), (4, 6), (2, 2)])
@pytest.mark.parametrize("bend", [0.0, 0.5, 3.0])
def test_what_is_interpolated_is_within_the_tolerance(shape: tuple[int, int], bend: float) -> None:
    losses = bowl(*shape, bend)
    grid = Grid(losses)
    values, was_read = refine(*shape, grid, tolerance=0.05)
    assert len(grid.read) == len(set(grid.read)) == was_read.sum()
    assert np.array_equal(values["train_loss"][was_read], losses[was_read])
    # A quadratic has the second differences that the estimate looks at: it is exact to rounding.
    assert np.abs(np.log(values["train_loss"] / losses)).max() <= 0.05 + 1e-9
    assert np.abs(values["train_accuracy"] - 1 / (1 + losses)).max() < 0.05


def test_a_straight_surface_is_read_at_the_coarsest_nodes_alone() -> None:
    grid = Grid(bowl(21, 21, 0.0))
    refine(21, 21, grid, tolerance=0.01)
    assert len(grid.read) == 36
    bent = Grid(bowl(21, 21, 8.0))
    refine(21, 21, bent, tolerance=0.001)
    assert len(bent.read) == 441


def test_a_kink_is_read_finely_where_it_is() -> None:
    losses = np.exp(3 * np.abs(np.linspace(-1, 1, 41)))[None].repeat(41, 0)
    values, was_read = refine(41, 41, Grid(losses), tolerance=0.02)
    assert was_read[:, 18:23].all()
    assert not was_read[:, 1].all()
    assert np.abs(np.log(values["train_loss"] / losses)).max() < 0.02


def test_cells_beside_a_loss_that_is_no_number_are_read() -> None:
    losses = bowl(21, 21, 0.0)
    losses[20, 20] = np.inf
    values, was_read = refine(21, 21, Grid(losses), tolerance=0.5)
    assert was_read[18:, 18:].all()
    assert np.isinf(values["train_loss"][20, 20])
    assert np.isfinite(values["train_loss"]).sum() == 440

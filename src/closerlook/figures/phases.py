"""Where training works: accuracy over two settings, with the runs that diverged counted in each cell."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from closerlook.errors import UsageError
from closerlook.figures.style import FIELD, INK, font_size, panels, plain, width_of, wrapped

_SHARE = 0.65  # of the width of the figure that the map takes


def phase_diagram(
    rates: Sequence[float],
    lengths: Sequence[float],
    accuracies: ArrayLike,
    diverged: ArrayLike,
    ax: Axes | None = None,
    *,
    ylabel: str = "warmup length (steps)",
    unit: str = "validation accuracy (%)",
) -> Axes:
    r"""Draw mean accuracy over learning rate and warmup length, and in each cell how many of its runs diverged.

    Parameters
    ----------
    rates, lengths
        Learning rates and lengths of warmup in increasing order, n and m of them; every one gets an equal share of
        its axis, so a grid of constant factors is logarithmic.
    accuracies
        Accuracy of every run in [0, 1], [m, n, runs]; NaN where there is no run. A cell without runs stays blank. A
        run that diverged has the accuracy that it counts with, such as that of guessing.
    diverged
        Whether a run diverged, [m, n, runs].
    ax
        Where to draw; made if not given, higher for more lengths.
    ylabel
        Quantity and unit of `lengths`.
    unit
        What is shown, beside the colour bar; it runs from 0 to 100 in every figure.

    Returns
    -------
    Axes
        In each cell stands the mean in percent, and below it, if runs diverged, how many of how many.

    Raises
    ------
    UsageError
        An empty grid, arrays of another shape, or a run that diverged and has no accuracy.

    Examples
    --------
    >>> ax = phase_diagram([0.1, 0.3], [0], [[[0.8, 0.9], [0.1, 0.8]]], [[[False, False], [True, False]]])
    >>> [text.get_text() for text in ax.texts]
    ['85', '45\n1/2 ✕']
    """
    runs, lost = np.asarray(accuracies, dtype=float), np.asarray(diverged, dtype=bool)
    _check(runs, lost, (len(lengths), len(rates)))
    there = np.isfinite(runs)
    count = there.sum(axis=2)
    mean = np.where(there, runs, 0).sum(axis=2) / np.where(count, count, np.nan)
    ax = ax or panels(height=1.2 + 0.5 * len(lengths))[0]
    shown = np.ma.masked_invalid(100 * mean)
    mesh = ax.pcolormesh(shown, cmap=FIELD, vmin=0, vmax=100, edgecolors="white", linewidth=0.5)
    _write(ax, mean, lost.sum(axis=2), count)
    _name(ax, rates, lengths)
    ax.set_ylabel(wrapped(ylabel, ax, 0.6))
    ax.figure.colorbar(mesh, ax=ax, shrink=0.9).set_label(plain(unit))
    return ax


def _check(runs: NDArray[np.float64], lost: NDArray[np.bool_], grid: tuple[int, int]) -> None:
    if not all(grid):
        raise UsageError("a phase diagram needs at least one learning rate and one warmup length")
    if runs.ndim != 3 or runs.shape[:2] != grid or lost.shape != runs.shape:
        raise UsageError(
            f"{grid[0]} lengths and {grid[1]} rates need accuracies and diverged [{grid[0]}, {grid[1]}, runs]; "
            f"these have {runs.shape} and {lost.shape}"
        )
    if (lost & ~np.isfinite(runs)).any():
        raise UsageError("a run that diverged has no accuracy; give it the one that it counts with, such as guessing's")


def _write(ax: Axes, mean: NDArray[np.float64], lost: NDArray[np.int_], count: NDArray[np.int_]) -> None:
    cell = _SHARE * width_of(ax) / mean.shape[1]
    size = min(font_size(ax), cell / 3.5)  # five signs and a gap
    for (row, column), value in np.ndenumerate(mean):
        if count[row, column]:
            below = f"\n{lost[row, column]}/{count[row, column]} \N{MULTIPLICATION X}" if lost[row, column] else ""
            ax.text(
                column + 0.5, row + 0.5, f"{100 * value:.0f}{below}", ha="center", va="center", fontsize=size,
                color="white" if value < 0.5 else INK,
            )  # fmt: skip


def _name(ax: Axes, rates: Sequence[float], lengths: Sequence[float]) -> None:
    across, up = ([f"{value:.3g}" for value in values] for values in (rates, lengths))
    crowded = 0.6 * font_size(ax) * len(across) * (max(map(len, across)) + 1) > _SHARE * width_of(ax)
    ax.set_xticks(np.arange(len(across)) + 0.5, across, rotation=90 if crowded else 0)
    ax.set_yticks(np.arange(len(up)) + 0.5, up)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("learning rate")

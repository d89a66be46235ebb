"""Curves over epochs: every seed a thin line, the mean a thick one, floors as ticks."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from closerlook.errors import UsageError
from closerlook.figures.ends import Ends, mark_ends
from closerlook.figures.seeds import Seed, as_lines, seed_lines
from closerlook.figures.style import HALO, INK, font_size, label_x, legend_above, look, panels, wrapped


def learning_rate(
    epochs: ArrayLike,
    lr_by_arm: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    floors: Sequence[float] = (),
    log: bool | None = None,
) -> Axes:
    """Plot the learning rate of each arm against epoch.

    Parameters
    ----------
    epochs
        Positions in epochs, [n].
    lr_by_arm
        Learning rate of each arm, [n]; arms take their colours in this order in every figure.
    ax
        Where to draw; made if not given.
    floors
        Epochs that get a tick at the bottom, such as the ends of the cycles.
    log
        Whether the axis is logarithmic; None decides it by the data: yes if the rate is positive throughout and
        spans a factor of 100.

    Examples
    --------
    >>> learning_rate([0, 1, 2], {"cosine": [0.1, 0.05, 1e-6]}).get_yscale()
    'log'
    """
    ax = ax or panels(height=2.6)[0]
    for index, (arm, rates) in enumerate(lr_by_arm.items()):
        seed_lines(ax, epochs, [rates], look(index), arm, markers=False)
    values = np.concatenate([np.ravel(np.asarray(rates, dtype=float)) for rates in lr_by_arm.values()])
    if log or (log is None and _spans_decades(values)):
        ax.set_yscale("log")
    ax.set_ylabel("learning rate")
    return _over_epochs(ax, floors)


def accuracy(
    epoch_by_arm: Mapping[str, ArrayLike],
    values_by_arm_and_seed: Mapping[str, Mapping[Seed, ArrayLike]],
    ax: Axes | None = None,
    *,
    floors: Sequence[float] = (),
    ylabel: str = "validation accuracy (%)",
    diverged: Ends | None = None,
    chance: float | None = None,
) -> Axes:
    """Plot accuracy against epoch, per arm and seed.

    Parameters
    ----------
    epoch_by_arm
        Epochs at which each arm was evaluated, [n].
    values_by_arm_and_seed
        Accuracy in [0, 1], [n] or shorter for a run that ended early.
    ax
        Where to draw; made if not given.
    floors
        Epochs that get a tick at the bottom.
    ylabel
        Label of the axis, which shows percent.
    diverged
        Per arm and seed the epoch at which a run diverged: a cross at the accuracy that it counts with.
    chance
        Accuracy of guessing, in [0, 1], with which diverged runs count; a dotted line.

    Raises
    ------
    UsageError
        Runs diverged and there is no `chance`, or they are of no arm that is drawn.

    Examples
    --------
    >>> accuracy({"R": [1, 2]}, {"R": {100: [0.2, 0.5], 101: [0.3, 0.4]}}).get_xlabel()
    'epoch'
    """
    ax = ax or panels()[0]
    for index, (arm, by_seed) in enumerate(values_by_arm_and_seed.items()):
        lines = [100 * np.asarray(values, dtype=float) for values in by_seed.values()]
        seed_lines(ax, epoch_by_arm[arm], lines, look(index), arm)
    if chance is not None:
        ax.axhline(100 * chance, color=INK, linestyle=":", linewidth=1.0, label="chance")
        mark_ends(ax, diverged or {}, list(values_by_arm_and_seed), 100 * chance)
    elif diverged:
        raise UsageError("a run that diverged counts as guessing; give its accuracy by chance=")
    ax.set_ylabel(wrapped(ylabel, ax, 0.65))
    return _over_epochs(ax, floors)


def norms(
    epochs: ArrayLike,
    values_by_arm: Mapping[str, ArrayLike],
    ylabel: str = "weight norm (L2)",
    ax: Axes | None = None,
    *,
    floors: Sequence[float] = (),
) -> Axes:
    """Plot weight norms, or distances from the start, against epoch.

    Parameters
    ----------
    epochs
        Positions in epochs, [n].
    values_by_arm
        Per arm one line [n], or one per seed [seeds, n].
    ylabel
        Quantity and unit.
    ax
        Where to draw; made if not given.
    floors
        Epochs that get a tick at the bottom.

    Examples
    --------
    >>> norms([0, 1], {"R": [[3.0, 3.5], [3.1, 3.4]]}).get_ylabel()
    'weight norm (L2)'
    """
    ax = ax or panels()[0]
    for index, (arm, values) in enumerate(values_by_arm.items()):
        seed_lines(ax, epochs, as_lines(values), look(index), arm)
    ax.set_ylabel(wrapped(ylabel, ax, 0.65))
    return _over_epochs(ax, floors)


def _spans_decades(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    return bool(known.size and known.min() > 0 and known.max() >= 100 * known.min())


def _over_epochs(ax: Axes, floors: Sequence[float]) -> Axes:
    """Label the epochs, mark the floors, add the legend."""
    label_x(ax, "epoch")
    ax.locator_params(axis="x", integer=True)
    if len(floors):
        ax.vlines(floors, 0, 0.06, transform=ax.get_xaxis_transform(), color=INK, linewidth=1.6)
        for floor in floors:
            ax.annotate(
                f"{floor:g}", (floor, 0.06), xycoords=ax.get_xaxis_transform(), ha="center", va="bottom",
                fontsize=0.9 * font_size(ax), path_effects=HALO, zorder=5,
            )  # fmt: skip
    legend_above(ax)
    return ax

"""What happens step by step: sharpness against the stability threshold, whose sharpness it is, how fast layers move."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from closerlook.errors import UsageError
from closerlook.figures.ends import Ends, mark_ends
from closerlook.figures.style import (
    INK,
    Seed,
    as_lines,
    by_depth,
    label_x,
    label_y,
    legend_above,
    legend_of_figure,
    look,
    panels,
    plain,
    seed_lines,
)

_THRESHOLD: dict[str, Any] = {"linestyle": (0, (7, 3)), "linewidth": 1.1}


def sharpness_trace(
    steps_by_arm: Mapping[str, ArrayLike],
    sharpness_by_arm_and_seed: Mapping[str, Mapping[Seed, ArrayLike]],
    thresholds_by_arm: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    diverged: Ends | None = None,
    ylabel: str = "largest Hessian eigenvalue",
) -> Axes:
    """Plot sharpness against step, and the sharpness at which each arm's learning rate stops being stable.

    Parameters
    ----------
    steps_by_arm
        Steps at which each arm was measured, [n].
    sharpness_by_arm_and_seed
        The largest eigenvalue of the Hessian, [n] or shorter for a run that ended early; what is not finite and
        positive leaves a gap.
    thresholds_by_arm
        The largest stable eigenvalue at the learning rate of each of the arm's steps, [n]: 2 / rate for gradient
        descent, 2 (1 + m) / rate with momentum m.
    ax
        Where to draw; made if not given.
    diverged
        Per arm and seed the step at which a run diverged: a cross at the top.
    ylabel
        Quantity.

    Returns
    -------
    Axes
        Logarithmic. Thin lines are seeds, the thick line is their geometric mean, the dashed thin one the threshold.

    Raises
    ------
    UsageError
        No arms; an arm of `diverged`, or without thresholds, that does not fit.

    Examples
    --------
    >>> trace = sharpness_trace({"N": [0, 1]}, {"N": {100: [8.0, 30.0]}}, {"N": [20.0, 20.0]}, diverged={"N": {100: 2}})
    >>> trace.get_yscale(), trace.get_xlabel()
    ('log', 'step')

    References
    ----------
    Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability, arXiv 2103.00065.
    """
    if not sharpness_by_arm_and_seed:
        raise UsageError("a trace of sharpness needs at least one arm")
    ax = ax or panels()[0]
    arms = list(sharpness_by_arm_and_seed)
    for index, arm in enumerate(arms):
        lines = list(sharpness_by_arm_and_seed[arm].values())
        seed_lines(ax, steps_by_arm[arm], lines, look(index), arm, log=True)
    ax.set_yscale("log")
    thresholds = [_positive(thresholds_by_arm[arm], steps_by_arm[arm], f"thresholds of {arm}") for arm in arms]
    lowest = [float(np.nanmin(each)) for each in thresholds if np.isfinite(each).any()]
    low, high = ax.get_ylim()
    for index, (arm, each) in enumerate(zip(arms, thresholds, strict=True)):
        ax.plot(steps_by_arm[arm], each, color=look(index).color, **_THRESHOLD)
    # A rate near 0 is stable at any sharpness: its threshold leaves the panel instead of stretching it.
    ax.set_ylim(min([low, *(each / 1.3 for each in lowest)]), max([high, *(1.3 * each for each in lowest)]))
    ax.plot([], [], color=INK, label="stability threshold", **_THRESHOLD)
    mark_ends(ax, diverged or {}, arms, 0.97, ax.get_xaxis_transform())
    legend_above(ax)
    return _over_steps(ax, ylabel)


def block_shares(
    steps: ArrayLike,
    shares_by_block: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    ylabel: str = "share of the top eigenvector",
) -> Axes:
    """Plot how a vector over the weights divides among the blocks of the network, step by step, as stacked bands.

    Parameters
    ----------
    steps
        Steps at which it was measured, [n].
    shares_by_block
        Per block, shallow to deep, its part of the vector's squared length, [n]; NaN leaves a gap.
    ax
        Where to draw; made if not given.
    ylabel
        Quantity; the axis runs from 0 to 1.

    Raises
    ------
    UsageError
        No blocks, or another number of shares than of steps.

    Examples
    --------
    >>> block_shares([0, 10], {"block 1": [0.2, 0.1], "head": [0.8, 0.9]}).get_ylabel()
    'share of the top eigenvector'
    """
    if not shares_by_block:
        raise UsageError("a figure of shares needs at least one block")
    ax = ax or panels(height=2.6)[0]
    x, below = np.asarray(steps, dtype=float), np.zeros(np.size(steps))
    for index, (block, shares) in enumerate(shares_by_block.items()):
        above = below + _fitting(shares, x, f"shares of {block}")
        color = by_depth(index, len(shares_by_block)).color
        ax.fill_between(x, below, above, facecolor=color, edgecolor="white", linewidth=0.6, label=plain(block))
        below = above
    ax.set_ylim(0, 1)
    legend_above(ax)
    return _over_steps(ax, ylabel)


def updates(
    steps: ArrayLike,
    values_by_block: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    title: str = "",
    ylabel: str = "relative update per step",
    legend: bool = True,
) -> Axes:
    """Plot how far each block of the network moves in one step, relative to its weights: |change of w| / |w|.

    Parameters
    ----------
    steps
        Steps at which it was measured, [n].
    values_by_block
        Per block, shallow to deep, one line [n], or one per seed [seeds, n]; what is not finite and positive leaves a
        gap, such as a block that is frozen.
    ax
        Where to draw; made if not given. Arms stand side by side in ``panels(columns=2, share_y=True)``.
    title
        Name of the arm; it stands above.
    ylabel
        Quantity.
    legend
        Whether the blocks are named, above the whole figure; once is enough for arms side by side.

    Raises
    ------
    UsageError
        No blocks.

    Examples
    --------
    >>> updates([0, 1], {"block 1": [1e-3, 1e-4], "head": [[1e-2, 1e-3], [2e-2, 1e-3]]}, title="W").get_yscale()
    'log'
    """
    if not values_by_block:
        raise UsageError("a figure of updates needs at least one block")
    ax = ax or panels()[0]
    for index, (block, values) in enumerate(values_by_block.items()):
        seed_lines(ax, steps, as_lines(values), by_depth(index, len(values_by_block)), block, log=True)
    ax.set_yscale("log")
    ax.set_title(plain(title), loc="left")
    if legend:
        legend_of_figure(ax)
    return _over_steps(ax, ylabel)


def _fitting(values: ArrayLike, x: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=float)
    if found.shape != x.shape:
        raise UsageError(f"{what} have the shape {found.shape}, the steps {x.shape}; give one number per step")
    return found


def _positive(values: ArrayLike, steps: ArrayLike, what: str) -> NDArray[np.float64]:
    found = _fitting(values, np.asarray(steps, dtype=float), what)
    return np.where(np.isfinite(found) & (found > 0), found, np.nan)


def _over_steps(ax: Axes, ylabel: str) -> Axes:
    label_x(ax, "step")
    label_y(ax, ylabel)
    ax.locator_params(axis="x", integer=True)
    return ax

"""The blocks of a network step by step, shallow ones dark, deep ones light: who holds what, and who moves how far."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from closerlook.errors import UsageError
from closerlook.figures.seeds import as_lines, seed_lines
from closerlook.figures.style import by_depth, label_steps, legend_above, legend_of_figure, panels, plain


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
        share = np.asarray(shares, dtype=float)
        if share.shape != x.shape:
            raise UsageError(f"{block} has {share.size} shares at {x.size} steps; give one for each")
        above = below + share
        color = by_depth(index, len(shares_by_block)).color
        ax.fill_between(x, below, above, facecolor=color, edgecolor="white", linewidth=0.6, label=plain(block))
        below = above
    ax.set_ylim(0, 1)
    legend_above(ax)
    label_steps(ax, ylabel)
    return ax


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
    label_steps(ax, ylabel)
    return ax

"""Sharpness step by step, against the sharpness that the learning rate can bear."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from closerlook.errors import UsageError
from closerlook.figures.ends import Ends, mark_ends
from closerlook.figures.seeds import Seed, seed_lines
from closerlook.figures.style import INK, label_steps, legend_above, look, panels

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
        No arms, an arm without steps or thresholds or with another number of them, runs of another arm that diverged.

    Examples
    --------
    >>> trace = sharpness_trace({"N": [0, 1]}, {"N": {100: [8.0, 30.0]}}, {"N": [20.0, 20.0]}, diverged={"N": {100: 2}})
    >>> trace.get_yscale(), trace.get_xlabel()
    ('log', 'step')

    References
    ----------
    Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability, arXiv 2103.00065.
    """
    arms = list(sharpness_by_arm_and_seed)
    thresholds = _thresholds(arms, steps_by_arm, thresholds_by_arm)
    ax = ax or panels()[0]
    for index, arm in enumerate(arms):
        lines = list(sharpness_by_arm_and_seed[arm].values())
        seed_lines(ax, steps_by_arm[arm], lines, look(index), arm, log=True)
    ax.set_yscale("log")
    lowest = [float(np.nanmin(each)) for each in thresholds if np.isfinite(each).any()]
    low, high = ax.get_ylim()
    for index, (arm, each) in enumerate(zip(arms, thresholds, strict=True)):
        ax.plot(steps_by_arm[arm], each, color=look(index).color, **_THRESHOLD)
    # A rate near 0 is stable at any sharpness: its threshold leaves the panel instead of stretching it.
    ax.set_ylim(min([low, *(each / 1.3 for each in lowest)]), max([high, *(1.3 * each for each in lowest)]))
    ax.plot([], [], color=INK, label="stability threshold", **_THRESHOLD)
    mark_ends(ax, diverged or {}, arms, 0.97, ax.get_xaxis_transform())
    legend_above(ax)
    label_steps(ax, ylabel)
    return ax


def _thresholds(
    arms: Sequence[str], steps_by_arm: Mapping[str, ArrayLike], thresholds_by_arm: Mapping[str, ArrayLike]
) -> list[NDArray[np.float64]]:
    """The thresholds of every arm, NaN where the rate is 0 and any sharpness is stable."""
    if not arms:
        raise UsageError("a trace of sharpness needs at least one arm")
    found = []
    for arm in arms:
        if arm not in steps_by_arm or arm not in thresholds_by_arm:
            raise UsageError(f"{arm} needs its steps and thresholds beside its sharpness")
        values = np.asarray(thresholds_by_arm[arm], dtype=float)
        if values.shape != np.shape(steps_by_arm[arm]):
            raise UsageError(f"{arm} has {np.size(steps_by_arm[arm])} steps, {values.size} thresholds; give one each")
        found.append(np.where(np.isfinite(values) & (values > 0), values, np.nan))
    return found

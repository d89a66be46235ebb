"""Where runs diverged: one cross per run in the colour of its arm."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import Transform

from closerlook.errors import UsageError
from closerlook.figures.seeds import Seed
from closerlook.figures.style import HALO, INK, look

Ends = Mapping[str, Mapping[Seed, float]]  # per arm and seed the position at which the run diverged


def mark_ends(ax: Axes, ends: Ends, arms: Sequence[str], height: float, across: Transform | None = None) -> None:
    """Draw a cross at the end of each run that diverged, at `height` in data units or in those of `across`.

    Raises
    ------
    UsageError
        An arm that is not drawn.
    """
    unknown = [arm for arm in ends if arm not in arms]
    if unknown:
        raise UsageError(f"{', '.join(unknown)} diverged, but the figure shows {', '.join(arms)}; use its names")
    looks: dict[str, Any] = {"linestyle": "", "marker": "x", "markersize": 8, "markeredgewidth": 2.0}
    for index, arm in enumerate(arms):
        at = list(ends.get(arm, {}).values())
        if at:
            ax.plot(
                at, [height] * len(at), color=look(index).color, transform=across or ax.transData, zorder=4,
                path_effects=HALO, clip_on=False, **looks,
            )  # fmt: skip
    if any(ends.values()):
        ax.plot([], [], color=INK, label="diverged", **looks)

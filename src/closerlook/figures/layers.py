"""Similarity from layer to layer: one line per measure or arm, its interval, and its chance level."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from closerlook.figures.seeds import Seed, seed_lines
from closerlook.figures.style import INK, label_x, legend_above, look, panels, plain, wrapped

Band = tuple[ArrayLike, ArrayLike]
_GREY = "#8c8c8c"
_SHADES: tuple[tuple[str, dict[str, Any]], ...] = (  # of the edges and of what is between
    ("-", {"facecolor": "#d9d9d9", "edgecolor": _GREY}),
    ("--", {"facecolor": "none", "edgecolor": _GREY, "hatch": "////"}),
)


def layer_profile(
    layers: Sequence[str],
    values_by_name_and_seed: Mapping[str, Mapping[Seed, ArrayLike]],
    ylabel: str = "similarity",
    ax: Axes | None = None,
    *,
    bands: Mapping[str, Band] | None = None,
    chance: Mapping[str, ArrayLike] | None = None,
    references: Mapping[str, Band] | None = None,
) -> Axes:
    """Plot similarity against layer, from input to output.

    Parameters
    ----------
    layers
        Names, l of them.
    values_by_name_and_seed
        Per measure (or arm) and seed one value per layer, [l]; entries that are not finite leave a gap.
    ylabel
        Quantity.
    ax
        Where to draw; made if not given.
    bands
        Per name the lower and upper ends of an interval, [l] each; drawn as bars.
    chance
        Per name the value that unrelated representations would have, [l]; drawn as thin dotted lines.
    references
        Per name the lowest and highest values, [l] each, of what the lines are to be held against; shaded behind them.

    Examples
    --------
    >>> layer_profile(["conv1", "fc"], {"CKA": {100: [0.9, 0.4]}}).get_xlabel()
    'layer, from input to output'
    """
    ax = ax or panels(height=3.6)[0]
    x = np.arange(len(layers))
    names = list(values_by_name_and_seed)
    for (dash, shade), (name, band) in zip(cycle(_SHADES), (references or {}).items(), strict=False):
        ends = np.array(band, dtype=float)
        ax.fill_between(x, *ends, linewidth=0, **shade)
        ax.plot(x, ends.T, color=_GREY, linewidth=1.2, linestyle=dash)
        ax.fill_between([], [], label=plain(name), linewidth=1.2, linestyle=dash, **shade)  # as the legend shows it
    for index, (name, by_seed) in enumerate(values_by_name_and_seed.items()):
        seed_lines(ax, x, list(by_seed.values()), look(index), name)
    for name, (low, high) in (bands or {}).items():
        ax.vlines(x + 0.08 * names.index(name), low, high, color=look(names.index(name)).color, linewidth=1.4)
    for name, level in (chance or {}).items():
        ax.plot(x, np.asarray(level, dtype=float), color=look(names.index(name)).color, linestyle=":", linewidth=1.0)
    if chance:
        ax.plot([], [], color=INK, linestyle=":", linewidth=1.0, label="chance")
    ax.set_xticks(x, [plain(layer) for layer in layers], rotation=90)
    label_x(ax, "layer, from input to output")
    ax.set_ylabel(wrapped(ylabel, ax, 0.5))  # panels of profiles are low
    legend_above(ax)
    return ax

"""Similarity from layer to layer: one line per measure or arm, its interval, and its chance level."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from closerlook.figures.style import Seed, legend_above, look, panels, plain, seed_lines, wrapped

Band = tuple[ArrayLike, ArrayLike]


def layer_profile(
    layers: Sequence[str],
    values_by_name_and_seed: Mapping[str, Mapping[Seed, ArrayLike]],
    ylabel: str = "similarity",
    ax: Axes | None = None,
    *,
    bands: Mapping[str, Band] | None = None,
    chance: Mapping[str, ArrayLike] | None = None,
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

    Examples
    --------
    >>> layer_profile(["conv1", "fc"], {"CKA": {100: [0.9, 0.4]}}).get_xlabel()
    'layer, from input to output'
    """
    ax = ax or panels(height=3.6)[0]
    x = np.arange(len(layers))
    names = list(values_by_name_and_seed)
    for index, (name, by_seed) in enumerate(values_by_name_and_seed.items()):
        seed_lines(ax, x, list(by_seed.values()), look(index), name)
    for name, (low, high) in (bands or {}).items():
        ax.vlines(x + 0.08 * names.index(name), low, high, color=look(names.index(name)).color, linewidth=1.4)
    for name, level in (chance or {}).items():
        ax.plot(x, np.asarray(level, dtype=float), color=look(names.index(name)).color, linestyle=":", linewidth=1.0)
    ax.set_xticks(x, [plain(layer) for layer in layers], rotation=90)
    ax.set_xlabel("layer, from input to output")
    ax.set_ylabel(wrapped(ylabel, ax, 0.65))
    legend_above(ax)
    return ax

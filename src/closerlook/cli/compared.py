"""A comparison of layers for people: tables, figures, and what such numbers mean nothing without."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from closerlook.cli.answer import columns
from closerlook.similarity import Comparison

_SHOWN = ("value", "chance", "corrected")
_ASKED = ("low", "high", "random", "shuffled")


def text(found: Comparison, split: str) -> str:
    """Values of layers of the same name, or each layer's nearest one where no names agree; then what they carry."""
    named = any(layer in found.layers_b for layer in found.layers_a)
    asked = [kind for kind in _ASKED if kind in found.tables]
    parts = [(name,) for name in found.measures] if asked else [found.measures]
    if not named:
        tables = [_nearest(found, measures, asked) for measures in parts]
    elif asked:
        tables = [_each(found, measure, asked) for measure in found.measures]
    else:
        tables = [_same(found)]
    carried = (
        f"\n{found.n:,} {split} images, {found.handling_used}, forward passes in {found.dtype}. A value's chance level "
        "is what examples paired\nat random would give; corrected = (value - chance) / (1 - chance)."
    )
    if "low" in found.tables:
        carried += (
            " Low to high: a 95 % interval over images\naround the value less its bias, so that a value near chance "
            "may lie outside. It says nothing about seeds."
        )
    return "\n".join(["\n\n".join(tables), carried, *(f"note: {note}" for note in found.notes)])


def drawings(found: Comparison) -> dict[str, Axes]:
    """A heat map per measure, and a profile where names agree."""
    drawn = {name.replace(":", "-").replace(",", "-"): found.plot(name) for name in found.measures}
    if any(layer in found.layers_b for layer in found.layers_a):
        drawn["layers"] = found.plot_layers()
    return drawn


def _same(found: Comparison) -> str:
    header = ["layer", "units", "directions"]
    for name in found.measures:
        header += [name, "chance", "corrected"]
    sides = [side for side in found.side_a if side.layer in found.layers_b]
    numbers = [found.diagonal(name, show).to_list() for name in found.measures for show in _SHOWN]
    rows = [
        (side.layer, side.width, side.rank, *(column[index] for column in numbers)) for index, side in enumerate(sides)
    ]
    return columns(header, rows)


def _each(found: Comparison, measure: str, asked: Sequence[str]) -> str:
    """One measure with its intervals and nulls: side by side they would not fit on a terminal."""
    kinds = ("directions_a", "directions_b", *_SHOWN, *asked)
    numbers = {kind: found.diagonal(measure, kind) for kind in kinds if kind in found.tables}
    header = ["layer", *(measure if kind == "value" else kind.replace("_", " ") for kind in numbers)]
    layers = list(numbers["value"].index)
    return columns(header, [(layer, *(_plain(of[layer]) for of in numbers.values())) for layer in layers])


def _plain(number: float) -> float | int:
    return int(number) if number.is_integer() and number > 1 else number


def _nearest(found: Comparison, measures: Sequence[str], asked: Sequence[str]) -> str:
    """Each layer of A and the layer of B that is most similar to it: the largest of several values is above chance."""
    kinds = ("value", "chance", *asked)
    header = ["layer of A", "units", "directions"]
    for name in measures:
        header += [f"nearest by {name}", *kinds]
    rows = []
    for index, side in enumerate(found.side_a):
        row: list[object] = [side.layer, side.width, side.rank]
        for name in measures:
            known = found.table(name).iloc[index].dropna()
            nearest = str(known.idxmax()) if len(known) else "-"
            numbers = [float(found.table(name, kind).iloc[index][nearest]) if len(known) else None for kind in kinds]
            row += [nearest, *numbers]
        rows.append(row)
    return columns(header, rows)

"""A comparison of layers for people: tables, figures, and what such numbers mean nothing without."""

from collections.abc import Sequence
from math import isfinite

from matplotlib.axes import Axes

from closerlook.cli.answer import columns
from closerlook.similarity import Comparison

_SHOWN = ("value", "chance", "corrected")
_ASKED = ("low", "high", "random", "shuffled")


def text(found: Comparison, split: str) -> str:
    """Values of layers of the same name, or each layer's nearest one where no names agree; then what they carry."""
    named = any(layer in found.layers_b for layer in found.layers_a)
    asked = [kind for kind in _ASKED if kind in found.tables]
    if named and asked:
        table = "\n\n".join(_each(found, name, asked) for name in found.measures)
    else:
        table = _same(found) if named else _nearest(found)
    carried = (
        f"\n{found.n:,} {split} images, {found.handling_used}, forward passes in {found.dtype}. A value's chance level "
        "is what examples paired\nat random would give; corrected = (value - chance) / (1 - chance)."
    )
    if "low" in found.tables:
        carried += (
            " Low to high: a 95 % interval over images\naround the value less its bias, so that a value near chance "
            "may lie outside. It says nothing about seeds."
        )
    return "\n".join([table, carried, *(f"note: {note}" for note in found.notes)])


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


def _nearest(found: Comparison) -> str:
    header = ["layer of A", "units", "directions"]
    for name in found.measures:
        header += [f"nearest by {name}", "value"]
    rows = []
    for index, side in enumerate(found.side_a):
        row: list[object] = [side.layer, side.width, side.rank]
        for name in found.measures:
            known = {
                layer: value for layer, value in zip(found.layers_b, found.tables["value"][name][index], strict=True)
                if isfinite(value)
            }  # fmt: skip
            nearest = max(known, key=known.__getitem__, default="-")
            row += [nearest, float(known[nearest]) if known else None]
        rows.append(row)
    return columns(header, rows)

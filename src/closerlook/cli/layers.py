"""``closerlook layers``: the layers of a network by the names that other verbs take."""

from collections.abc import Sequence
from typing import Annotated, Any

from torch import nn
from tyro.conf import Positional, arg

from closerlook.activations import Layer, choose, units_of
from closerlook.activations import layers as layers_of
from closerlook.cli.answer import answer, columns
from closerlook.cli.options import Json, Positive
from closerlook.cli.pairs import read_pairs
from closerlook.cli.points import with_source
from closerlook.data import Source
from closerlook.runs.recipe import ModelSpec
from closerlook.steps.setting import build_for, source

EXAMPLES = 4  # shown to the network to learn its shapes
HANDLINGS = ("as it is", "mean", "positions", "first", "flatten", "spectral")


def layers(
    model: Annotated[Positional[str], arg(metavar="MODEL", help_behavior_hint="")],
    data: Annotated[str, arg(metavar="NAME|MODULE:FUNCTION")],
    match: Annotated[tuple[str, ...], arg(metavar="PATTERN ...")] = ("*",),
    model_options: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="")] = (),
    resolution: Annotated[Positive | None, arg(help_behavior_hint="")] = None,
    json: Json = False,
) -> int:
    """List the layers of a network: names, types, shapes, parameters, and what their units are in a comparison.

    Names are those of modules, in the order in which a forward pass calls them; a module that is called twice is listed
    as NAME#1 and NAME#2. What a forward method computes with functions (relu, view, +) has no name of its own: it shows
    in the module around it. "16 x 36" are 16 units at 36 places.

    Parameters
    ----------
    model
        A built-in network (closerlook ls models), or your function that returns an nn.Module.
    data
        A built-in data set (closerlook ls data), or your function; it gives the shape of the inputs.
    match
        Which layers a comparison would take: names with the wildcards * and ?, NAME#2 for a second call, NAME:1 for
        the second of several outputs. The others are listed with a dash.
    model_options
        Settings of the network, such as width=0.25 head=linear.
    resolution
        Side of a built-in data set's images.

    Examples
    --------
    closerlook layers vgg11_bn --data fashion --model-options width=0.25
    closerlook layers mymodule:network --data mymodule:data --match "encoder.*relu*"
    """
    spec = with_source(ModelSpec(name=model, options=read_pairs(model_options)))
    loaded = source(data, resolution)
    found = listed(build_for(spec, loaded.input_shape(), loaded.classes, seed=0), loaded, match)
    chosen = {layer.name for layer in choose(found, match)}
    rows = [row(layer, layer.name in chosen) for layer in found]
    used = [name for name in HANDLINGS if any(name in each["units"] for each in rows)]
    header = ("layer", "type", "output of one", "parameters", "compared", *used)
    table = columns(
        header,
        [
            (each["layer"], each["type"], _by(each["shape"]), each["parameters"], each["compared"],
             *(_units(each["units"].get(name)) for name in used))
            for each in rows
        ],
    )  # fmt: skip
    answer(rows, table, json)
    return 0


def listed(network: nn.Module, data: Source, match: Sequence[str]) -> tuple[Layer, ...]:
    """Every layer of a network, from a few examples."""
    return layers_of(network, [data.prepare(data.train_inputs[:EXAMPLES])], match)


def row(layer: Layer, chosen: bool) -> dict[str, Any]:
    """One layer as plain values; `compared` says whether the patterns take it, and else why not."""
    said = f"- ({layer.problem})" if layer.problem else f"- (is {layer.same_as})" if layer.same_as else "-"
    return {
        "layer": layer.name, "type": layer.kind, "shape": list(layer.shape[1:]), "parameters": layer.parameters,
        "compared": "yes" if chosen else said, "units": units_of(layer),
    }  # fmt: skip


def _by(sizes: Any) -> str:
    return " x ".join(map(str, sizes)) or "1"


def _units(units: Any) -> str:
    return "" if units is None else str(units) if isinstance(units, int) else _by(units)

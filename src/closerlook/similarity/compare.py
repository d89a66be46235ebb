"""All layers of one network against all layers of another, in one pass over the data."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from closerlook.activations import Activations, Conv, Handling, Tokens
from closerlook.batches import BatchFn, Loader
from closerlook.errors import MismatchError, UsageError
from closerlook.similarity.cells import Array, Cells, Sums
from closerlook.similarity.comparison import Comparison
from closerlook.similarity.grids import Grids
from closerlook.similarity.measures import Measure, chosen
from closerlook.similarity.memory import refuse_above
from closerlook.similarity.sources import Layers, Rows, from_models, from_stored
from closerlook.similarity.spectral_grids import SpectralGrids
from closerlook.similarity.untrained import untrained as drawn_anew

Null = Literal["random", "shuffled"]
GROUPS = 10
REPAIR = "take fewer layers, or units (conv='mean', tokens='mean')"


def compare(
    model_a: nn.Module | Activations,
    model_b: nn.Module | Activations,
    loader: Loader | None = None,
    layers_a: Sequence[str] = ("*",),
    layers_b: Sequence[str] | None = None,
    measures: Sequence[str] = ("cca", "cka", "procrustes"),
    *,
    conv: Conv = "mean",
    tokens: Tokens = "mean",
    nulls: Sequence[Null] = (),
    intervals: bool = False,
    insist: bool = False,
    cut: float = 1.0,
    seed: int = 0,
    untrained: nn.Module | None = None,
    max_bytes: int | None = None,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> Comparison:
    """Similarity of every chosen layer of A with every chosen layer of B on the same examples.

    Both models see the same batches, in eval mode and fp32, and come back as they were. All measures are functions of
    sums over the examples, which are taken in float64 in one pass.

    Parameters
    ----------
    model_a, model_b
        Two networks, the same one twice, or what `closerlook.activations` read of them (then without `loader`).
    layers_a, layers_b
        Patterns such as ``"features.*"``, ``"*relu*"``, ``"block.relu#2"``; those of B default to those of A.
    measures
        Names as `closerlook.similarity.measure` reads them: ``"cca"``, ``"cca:r2"``, ``"svcca"``, ``"svcca:20,r2"`` (20
        directions on both sides, mean of squared correlations), ``"pwcca"``, ``"cka"``, ``"cka:biased"``,
        ``"procrustes"``.
    conv, tokens
        What the units of maps and token sequences are: see :class:`closerlook.activations.Handling`.
    nulls
        ``"random"``: A against B untrained (`untrained`, or B drawn anew from `seed`). ``"shuffled"``: B's examples in
        another order, one permutation of all of them; the rows of all layers are kept in memory for that.
    intervals
        Standard errors and 95 % intervals over examples (jackknife over 10 groups); they say nothing about seeds.
    insist
        Accept fewer than 5 examples per direction.
    cut
        Directions below `cut` times the rounding of the forward pass are dropped.
    max_bytes
        Refuse to allocate more; default most of what is free.

    Raises
    ------
    LayerError
        A pattern matches no layer, or the outputs of one cannot be compared.
    TooFewExamplesError, ConditionError
        A measure can be had for no pair; where it can for some, the others are NaN and the notes say why.
    MismatchError
        Stored activations of other batches, or with another handling.
    UsageError
        NaN in a layer (it is named), an unknown measure, or sums that do not fit in memory.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> found = compare(net, net, [torch.randn(200, 4)], ["1", "2"], measures=["cka"])
    >>> found.diagonal().round(6).to_dict()
    {'1': 1.0, '2': 1.0}
    """
    stored = isinstance(model_a, Activations) and isinstance(model_b, Activations)
    handling = _handling(model_a, Handling(conv, tokens))
    read = chosen(measures, handling.conv == "spectral", insist, seed)
    insisting = chosen(measures, handling.conv == "spectral", True, seed) if intervals else {}
    _check_nulls(nulls, stored, untrained is not None)
    patterns = (layers_a, layers_a if layers_b is None else layers_b)
    if isinstance(model_a, Activations) and isinstance(model_b, Activations):
        source = from_stored((model_a, model_b), patterns)
    else:
        models, loader = _models(model_a, model_b, loader)
        if "random" in nulls:
            models.append(drawn_anew(models[1], seed) if untrained is None else _network("untrained", untrained))
        source = from_models(models, (*patterns, patterns[1]), loader, handling, batch_fn, device)
    options = {"cut": cut, "max_bytes": max_bytes, "groups": GROUPS if intervals else 1}
    with closing(source) as batches:
        seen = _Seen(handling, nulls, options)
        for layers, rows, n in batches:
            seen.update(layers, rows, n)
    return seen.comparison(read, insisting, seed)


class _Seen:
    """Everything that the pass over the data leaves."""

    def __init__(self, handling: Handling, nulls: Sequence[Null], options: Mapping[str, Any]) -> None:
        self._handling, self._nulls, self._options = handling, nulls, options
        self._layers: Layers = []
        self._kept: list[tuple[Rows, Rows]] = []
        self._bytes = 0

    def update(self, layers: Layers, rows: list[Rows], n: int) -> None:
        """Add a batch: rows of A, of B and, for the null of that name, of B untrained."""
        if not self._layers:
            self._layers = layers
            self._prepare()
        self.grids.update(rows[0], rows[1], n)
        if "random" in self._nulls:
            self._random.update(rows[0], rows[2], n)
        if "shuffled" in self._nulls:
            self._kept.append((rows[0], rows[1]))
            self._bytes += sum(value.nbytes for side in rows[:2] for value in side.values())
            what = "the rows that the shuffled null keeps"
            refuse_above(self._bytes, self._options["max_bytes"], what, "take fewer layers or examples")

    def _prepare(self) -> None:
        """Empty sums of everything, refused before the first batch is added when they do not fit together."""
        self.grids = self._empty(1, self._options)
        sums = [self.grids]
        if "random" in self._nulls:
            self._random = self._empty(2)
            sums.append(self._random)
        if "shuffled" in self._nulls:
            sums.append(self._empty(1))
        what = f"the sums of {self.grids}{' and those of the nulls' if len(sums) > 1 else ''}"
        refuse_above(sum(each.bytes for each in sums), self._options["max_bytes"], what, REPAIR)

    def comparison(self, measures: Mapping[str, Measure], insisting: Mapping[str, Measure], seed: int) -> Comparison:
        """The numbers; with intervals where there are measures that `insist`."""
        names = [[layer.name for layer in layers] for layers in self._layers]
        cells = Cells(names[0], names[1], measures)
        tables: dict[str, dict[str, Array]] = cells.tables(self.grids)
        values = tables["value"]
        if insisting:
            tables |= cells.intervals(self.grids, values, insisting)
        if "random" in self._nulls:
            tables["random"] = cells.other(self._random, "the random null", values)
        if "shuffled" in self._nulls:
            tables["shuffled"] = cells.other(self._shuffled(seed), "the shuffled null", values)
        types = {str(layer.dtype).removeprefix("torch.") for layers in self._layers for layer in layers}
        side_a, side_b = cells.sides(self.grids)
        return Comparison(
            side_a, side_b, tables, self.grids.n, asdict(self._handling), " and ".join(sorted(types)),
            cells.notes() + self._notes(), conventions=cells.conventions(),
        )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        if any(self._handling.positions(layer.shape) for layers in self._layers for layer in layers):
            return (
                f"rows are positions of {self.grids.n} examples, and positions are not independent: the chance level "
                "is too low; nulls=['shuffled'] shuffles examples and keeps positions",
            )
        return ()

    def _empty(self, other: int, options: Mapping[str, Any] | None = None) -> Sums:
        a, b = self._layers[0], self._layers[other]
        options = options or {**self._options, "groups": 1}
        if self._handling.conv == "spectral":
            return SpectralGrids(a, b, **options)
        return Grids(a, b, self._handling, **options)

    def _shuffled(self, seed: int) -> Sums:
        """Sums with the examples of B in another order: one permutation of all of them."""
        order = torch.randperm(self.grids.n, generator=torch.Generator().manual_seed(seed))
        made = self._empty(1)
        a, b = (
            {name: torch.cat([kept[side][name] for kept in self._kept]) for name in self._kept[0][side]}
            for side in (0, 1)
        )
        made.update(a, {name: _permuted(rows, order) for name, rows in b.items()}, self.grids.n)
        return made


def _permuted(rows: Tensor, order: Tensor) -> Tensor:
    """Rows with their examples in another order; the positions of an example stay together."""
    each = len(rows) // len(order)
    return rows.unflatten(0, (len(order), each))[order].flatten(0, 1)


def _models(
    a: nn.Module | Activations, b: nn.Module | Activations, loader: Loader | None
) -> tuple[list[nn.Module], Loader]:
    if isinstance(a, Activations) or isinstance(b, Activations):
        raise UsageError("compare two networks, or the activations of both: read the other side with activations()")
    models = [_network(name, model) for name, model in (("model_a", a), ("model_b", b))]
    if loader is None:
        raise UsageError("two networks are compared on a loader; only stored activations need none")
    return models, loader


def _network(name: str, model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{name} is a {type(model).__name__} and not a network; closerlook.loaded(network, checkpoint) gives a "
            "copy of a network with the weights of a file, a state dict or a point"
        )
    return model


def _handling(model: nn.Module | Activations, asked: Handling) -> Handling:
    """What becomes of maps and tokens: stored activations bring it along."""
    if not isinstance(model, Activations):
        return asked
    if asked not in (Handling(), model.handling):
        raise MismatchError(
            f"the activations were read with conv={model.handling.conv!r} and tokens={model.handling.tokens!r}; read "
            "them again with what is asked for here"
        )
    return model.handling


def _check_nulls(nulls: Sequence[str], stored: bool, given: bool) -> None:
    if isinstance(nulls, str):
        raise UsageError(f"nulls are a list of names such as [{nulls!r}], not {nulls!r}")
    unknown = set(nulls) - set(get_args(Null))
    if unknown:
        raise UsageError(f"no null {', '.join(sorted(unknown))}; there is {', '.join(get_args(Null))}")
    if given and "random" not in nulls:
        raise UsageError("an untrained network is compared where it is asked for: say nulls=['random'] as well")
    if stored and "random" in nulls:
        raise UsageError(
            "an untrained network has no stored activations; read them with activations() and compare A with them"
        )

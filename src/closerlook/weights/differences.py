"""What a state dict and a model do not have in common, in a screenful, with the likely cause."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

Shapes = Mapping[str, Sequence[int]]
_MOST_LINES = 16
_MOST_ITEMS = 4
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_REPARAMETRISED = ("parametrizations.", "weight_g", "weight_v", "weight_orig", "weight_mask")


@dataclass(frozen=True)
class Difference:
    """Names that a state dict lacks, names that the model lacks, and shapes (here, in the model) that differ.

    `common` counts the names of both, `known` are the model's, in its order.
    """

    missing: dict[str, tuple[int, ...]]
    extra: dict[str, tuple[int, ...]]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    common: int
    known: tuple[str, ...]

    @classmethod
    def between(cls, state: Shapes, needed: Shapes, known: Shapes) -> "Difference":
        """Of a state dict and a model that needs some of the names it knows."""
        missing = {name: tuple(shape) for name, shape in needed.items() if name not in state}
        extra = {name: tuple(shape) for name, shape in state.items() if name not in known}
        both = {name: (tuple(state[name]), tuple(shape)) for name, shape in known.items() if name in state}
        reshaped = {name: pair for name, pair in both.items() if pair[0] != pair[1]}
        return cls(missing, extra, reshaped, len(both), tuple(known))

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.missing or self.extra or self.reshaped)

    def text(self, origin: str) -> str:
        """The message: counts, one line per layer, the likely cause and its repair."""
        counts = (
            (len(self.missing), "missing"),
            (len(self.extra), "not in the model"),
            (len(self.reshaped), "of another shape"),
        )
        head = ", ".join(f"{count} {what}" for count, what in counts if count)
        lines = [f"  {'; '.join(_cut(items, _MOST_ITEMS, 'more'))}" for items in self._by_layer().values()]
        return "\n".join(
            [
                f"{origin} does not fit the model: {head}",
                *_cut(lines, _MOST_LINES, "more layers", indent="  "),
                f"Likely cause: {likely_cause(self)}",
            ]
        )

    def _by_layer(self) -> dict[str, list[str]]:
        meant = closest(self.extra, self.missing)
        items: dict[str, list[str]] = defaultdict(list)
        for name in self.known:
            if name in self.missing:
                items[_layer(name)].append(f"{name} {self.missing[name]} is missing")
            if name in self.reshaped:
                here, there = self.reshaped[name]
                items[_layer(name)].append(f"{name}: {here} here, {there} in the model")
        for name, shape in self.extra.items():
            question = f", did you mean {meant[name]}?" if name in meant else ""
            items[_layer(name)].append(f"{name} {shape} is not in the model{question}")
        return items


def closest(extra: Shapes, missing: Shapes) -> dict[str, str]:
    """For names that the model lacks, the missing ones of the same shape that may be meant.

    Layers that were renamed keep their order; where the numbers differ, the spelling decides.
    """
    meant: dict[str, str] = {}
    kinds: dict[tuple[str, tuple[int, ...]], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((extra, missing)):
        for name, shape in names.items():
            kinds[(name.rpartition(".")[2], tuple(shape))][side].append(name)
    for ours, theirs in kinds.values():
        if len(ours) == len(theirs):
            meant |= dict(zip(ours, theirs, strict=True))
            continue
        for name in ours[:_MOST_LINES] if theirs else ():
            meant.update((name, found) for found in get_close_matches(name, theirs, n=1, cutoff=0.6))
    return meant


def likely_cause(difference: Difference) -> str:
    """One sentence with the repair."""
    causes = (_curve, _prefix, _classes, _reparametrised, _norms, _part, _width)
    found = next((cause for cause in (find(difference) for find in causes) if cause), None)
    return found or (
        f"another architecture ({difference.common} names in common); build the model that has these weights"
    )


def _curve(difference: Difference) -> str | None:
    if not any(name.endswith("coeff_layer.range") for name in difference.extra):
        return None
    return "a whole curve of the reference code of mode connectivity, not one network; read it with load_curve"


def _prefix(difference: Difference) -> str | None:
    ours, theirs = (
        _common_prefix(longer, shorter)
        for longer, shorter in ((difference.extra, difference.missing), (difference.missing, difference.extra))
    )
    if ours:
        strip = f"{{name.removeprefix({ours!r}): value for name, value in state.items()}}"
        return f"the checkpoint's names begin with {ours!r} and the model's do not; pass {strip}"
    if theirs:
        return f"the model's names begin with {theirs!r} and the checkpoint's do not; pass model.{theirs.rstrip('.')}"
    return None


def _common_prefix(longer: Iterable[str], shorter: Collection[str]) -> str | None:
    """What most names of the one side have before a name of the other."""
    found = Counter(name.removesuffix(other) for name in longer for other in shorter if name.endswith(f".{other}"))
    prefix, count = found.most_common(1)[0] if found else ("", 0)
    return prefix if count > len(shorter) / 2 else None


def _classes(difference: Difference) -> str | None:
    layers = {_layer(name) for name in difference.reshaped}
    firsts = {(here[:1], there[:1]) for here, there in difference.reshaped.values()}
    rest = all(here[1:] == there[1:] for here, there in difference.reshaped.values())
    if len(layers) == len(firsts) == 1 and rest and not difference.missing and not difference.extra:
        ((here, there),) = firsts
        return f"a classifier of {here[0]} classes where the model has {there[0]}; build the model with {here[0]}"
    return None


def _reparametrised(difference: Difference) -> str | None:
    for names, which, other in (
        (difference.extra, "the checkpoint", "the model"),
        (difference.missing, "the model", "the checkpoint"),
    ):
        if any(mark in name for name in names for mark in _REPARAMETRISED):
            return (
                f"{which} has parametrized weights (weight norm, spectral norm, pruning) and {other} has not; apply it "
                "to both, or remove it from both"
            )
    return None


def _norms(difference: Difference) -> str | None:
    if difference.reshaped:
        return None
    norms = {_layer(name) for name in difference.known if name.endswith("running_mean")}
    statistics = [name for name in difference.extra if name.endswith(_STATISTICS)]
    theirs = {_layer(name) for name in statistics}
    if difference.missing and not statistics and {_layer(name) for name in difference.missing} <= norms:
        return "these weights are of a network without batch norm (folded into its convolutions?); build it without"
    if not difference.missing and len(statistics) == len(difference.extra):
        return (
            "the checkpoint has batch-norm statistics and the model keeps none; build it with "
            "track_running_stats=True, or drop these names"
        )
    if not difference.missing and {_layer(name) for name in difference.extra} == theirs:
        return "these weights are of a network with batch norm, and the model has none there; build it with batch norm"
    return None


def _part(difference: Difference) -> str | None:
    if difference.reshaped or not difference.common:
        return None
    if not difference.extra:
        return (
            "the checkpoint holds a part of the network (a backbone, an adapter); restrict the space with params='...'"
        )
    if not difference.missing:
        return "the model is a part of the checkpoint's network; drop the names that it has not"
    return None


def _width(difference: Difference) -> str | None:
    if len(difference.reshaped) > len(difference.missing) + len(difference.extra):
        return (
            f"another width or size of input: {len(difference.reshaped)} of {difference.common} tensors of the same "
            "names have other shapes; build the model with the options that these weights were trained with"
        )
    return None


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _cut(items: Iterable[str], most: int, what: str, indent: str = "") -> list[str]:
    every = list(items)
    return every if len(every) <= most else [*every[:most], f"{indent}and {len(every) - most} {what}"]

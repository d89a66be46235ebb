"""All measures on all pairs of layers, and how far they would move with other examples."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closerlook.errors import UsageError
from closerlook.similarity.grids import Grids
from closerlook.similarity.jackknife import enough_for, interval
from closerlook.similarity.measures import Measure
from closerlook.similarity.result import Similarity
from closerlook.similarity.sides import Side
from closerlook.similarity.spectral_grids import SpectralGrids

Array = NDArray[np.float64]
Names = Sequence[str]
Sums = Grids | SpectralGrids
_SHOWN, _USED = ("value", "chance", "corrected"), ("directions_a", "directions_b")
_OTHER_PLACES = "not compared: the maps have other sizes, so that positions do not pair"


class Cells:
    """Reads measures for every pair of layers and keeps what is to be said about them."""

    def __init__(self, layers_a: Names, layers_b: Names, measures: Mapping[str, Measure]) -> None:
        self._a, self._b, self._measures = layers_a, layers_b, measures
        self._said: defaultdict[str, list[str]] = defaultdict(list)
        self._used: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def tables(self, grids: Sums) -> dict[str, dict[str, Array]]:
        """Value, chance level, chance-corrected value, and the directions of both sides that the measure used.

        Raises
        ------
        UsageError
            A measure can be computed for no pair at all; the reason is that of its first pair.
        """
        made = {show: self._empty() for show in (*_SHOWN, *_USED)}
        reasons: dict[str, UsageError] = {}
        for place, pair, measure, found in self._each(grids, self._measures):
            if isinstance(found, UsageError):
                reasons.setdefault(measure, type(found)(f"{measure} of {pair}: {found}"))
                self._said[f"{measure}: {found}"].append(pair)
                continue
            for show in _SHOWN:
                made[show][measure][place] = getattr(found, show)
            for show, rank in zip(_USED, found.ranks, strict=True):
                made[show][measure][place] = rank
            self._used[measure].append({**found.conventions, "chance": found.null.how})
            for note in found.notes:
                self._said[f"{measure}: {note}"].append(pair)
        for measure, reason in reasons.items():
            if np.isnan(made["value"][measure]).all():
                raise reason
        return made

    def other(
        self, grids: Sums, what: str, values: Mapping[str, Array], measures: Mapping[str, Measure] | None = None
    ) -> dict[str, Array]:
        """The values of a null, or of some of the examples; where only they are missing, the notes say why."""
        made = self._empty()
        for place, pair, measure, found in self._each(grids, measures or self._measures):
            if isinstance(found, Similarity) and not np.isnan(found.value):
                made[measure][place] = found.value
            elif not np.isnan(values[measure][place]):
                why = "; ".join(found.notes) if isinstance(found, Similarity) else found
                self._said[f"{measure}, {what}: {why}"].append(pair)
        return made

    def intervals(
        self, grids: Sums, values: Mapping[str, Array], measures: Mapping[str, Measure]
    ) -> dict[str, dict[str, Array]]:
        """Standard error and interval over examples, by the delete-a-group jackknife.

        `measures` are those that accept the few examples that are left: whether there are enough was decided before.

        Raises
        ------
        TooFewExamplesError
            There are fewer examples than groups.
        """
        enough_for(grids.groups, grids.n)
        left_out = [
            self.other(grids.without(group), "without a tenth of the examples", values, measures)
            for group in range(grids.groups)
        ]
        found = {name: interval(values[name], [each[name] for each in left_out]) for name in values}
        return {end: {name: getattr(each, end) for name, each in found.items()} for end in ("error", "low", "high")}

    def conventions(self) -> dict[str, dict[str, Any]]:
        """By measure what all pairs share of the choices that change the number, and where its chance comes from."""
        used = {name: [each for each in self._used[name] if each["chance"] != "undefined"] for name in self._measures}
        return {
            name: {key: value for key, value in each[0].items() if all(other[key] == value for other in each)}
            for name, each in used.items() if each
        }  # fmt: skip

    def sides(self, grids: Sums) -> tuple[tuple[Side, ...], tuple[Side, ...]]:
        """What is known of each layer alone."""
        a, b = (tuple(grids.side(side, layer) for layer in layers) for side, layers in (("A", self._a), ("B", self._b)))
        return a, b

    def notes(self) -> tuple[str, ...]:
        """What there is to say, each with the pairs that it is true of."""
        told = {text: list(dict.fromkeys(pairs)) for text, pairs in self._said.items()}
        return tuple(
            f"{text} [{pairs[0]}{f' and {len(pairs) - 1} more pairs' if len(pairs) > 1 else ''}]"
            for text, pairs in told.items()
        )

    def _empty(self) -> dict[str, Array]:
        return {name: np.full((len(self._a), len(self._b)), np.nan) for name in self._measures}

    def _each(
        self, grids: Sums, measures: Mapping[str, Measure]
    ) -> Iterator[tuple[tuple[int, int], str, str, Similarity | UsageError]]:
        for i, a in enumerate(self._a):
            for j, b in enumerate(self._b):
                pair = grids.pair(a, b)
                if pair is None:
                    self._said[_OTHER_PLACES].append(f"{a} / {b}")
                    continue
                for name, measure in measures.items():
                    try:
                        yield (i, j), f"{a} / {b}", name, measure(pair)
                    except UsageError as error:
                        yield (i, j), f"{a} / {b}", name, error

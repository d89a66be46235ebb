"""The stored comparisons of layers by arm and seed, and what their numbers mean nothing without."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from closerlook.similarity import Comparison
from closerlook.studies.plan import Results

Array = NDArray[np.float64]
_NAMES = {"cka": "debiased linear CKA", "procrustes": "Procrustes similarity", "cca:r2": "mean squared CCA"}
_HANDLED = {"mean": "maps averaged over space", "spectral": "maps compared at each spatial frequency"}


@dataclass(frozen=True)
class Compared:
    """Comparisons by what is compared and by seed or pair of seeds; None where one is missing. At least one is not."""

    found: Mapping[str, Mapping[str, Comparison | None]]

    @property
    def any(self) -> Comparison:
        """One of them: layers, images and handling are those of all."""
        return next(self._kept())

    @property
    def layers(self) -> list[str]:
        """Names of the layers, without the prefix that most of them share."""
        return [layer.removeprefix("features.") for layer in self.any.layers_a]

    def has(self, name: str) -> bool:
        """Whether there is a comparison of this name."""
        return any(one is not None for one in self.found[name].values())

    def table(self, name: str, measure: str, show: str = "value") -> Array:
        """Similarities [seeds or pairs, layers of A, layers of B]; NaN where one is missing."""
        empty = np.full((len(self.any.layers_a), len(self.any.layers_b)), np.nan)
        tables = ({} if one is None else one.tables.get(show, {}) for one in self.found[name].values())
        return np.array([of.get(measure, empty) for of in tables]).reshape(-1, *empty.shape)

    def same(self, name: str, measure: str, show: str = "value") -> Array:
        """Similarities of each layer with itself, [seeds or pairs, layers]."""
        return np.diagonal(self.table(name, measure, show), axis1=1, axis2=2)

    def chance(self, measure: str) -> tuple[float, float]:
        """The lowest and the highest chance level of all pairs of layers."""
        levels = np.concatenate([one.tables["chance"][measure].ravel() for one in self._kept()])
        known = levels[np.isfinite(levels)]
        return float(known.min()), float(known.max())

    def directions(self) -> list[tuple[int, int]]:
        """Per layer the fewest and the most directions that any of the networks has there."""
        ranks = np.array([[side.rank for side in sides] for one in self._kept() for sides in (one.side_a, one.side_b)])
        return list(zip(ranks.min(0).tolist(), ranks.max(0).tolist(), strict=True))

    def carried(self, *measures: str, layers: str = "outputs of activations, and logits") -> str:
        """Images, layers, handling, chance levels and what is missing, in words."""
        one = self.any
        levels = "; ".join(f"{named(measure)} {span(*self.chance(measure), digits='.2g')}" for measure in measures)
        said = [
            f"n = {one.n:,} test images in their order, not augmented; eval mode, {one.dtype}; {layers}; "
            f"{_HANDLED[one.handling['conv']]}. Chance (images paired at random): {levels}."
        ]
        if any(measure.startswith("svcca") for measure in measures):
            said.append("CCA: leading principal directions, as many for every layer; blank where there are fewer.")
        missing = [f"{name}, {seed}" for name, of in self.found.items() for seed, kept in of.items() if kept is None]
        if missing:
            said.append(f"Missing, where a run diverged before or never got there: {'; '.join(missing)}.")
        return " ".join(said)

    def _kept(self) -> Iterator[Comparison]:
        return (one for of in self.found.values() for one in of.values() if one is not None)


def found_in(results: Results, roles: Mapping[str, Mapping[str, str]]) -> Compared | None:
    """The comparisons stored under roles, by what is compared and seed; None where there is none."""
    found = {
        name: {seed: _stored(results, role) for seed, role in of.items() if role in results.plan.roles}
        for name, of in roles.items()
    }
    return Compared(found) if any(one is not None for of in found.values() for one in of.values()) else None


def _stored(results: Results, role: str) -> Comparison | None:
    return Comparison.from_dict(results.folder(role).result("compare")) if results.has(role) else None


def mean(values: Array) -> Array:
    """Mean over those of [seeds, ...] that are not missing as a whole."""
    kept = present(values)
    return kept.mean(0) if len(kept) else np.full(values.shape[1:], np.nan)


def present(values: Array) -> Array:
    """Those of [seeds, ...] that are not missing as a whole."""
    return values[~np.isnan(values).all(axis=tuple(range(1, values.ndim)))]


def counted(values: Array) -> str:
    """What is to be said where the mean of [seeds, ...] is not over all seeds."""
    kept, asked = len(present(values)), len(values)
    if kept == asked:
        return "" if asked else " (none)"
    return f" ({kept} of {asked})" if kept else " (missing)"


def each(values: Array) -> tuple[float | None, ...]:
    """The number of every seed as a table shows it; None where one is missing."""
    return tuple(None if np.isnan(value) else round(float(value), 3) for value in values)


def one_legend(axes: Sequence[Axes]) -> Axes:
    """Keep the first legend, which names the lines of all; returns its axes."""
    for ax in axes[1:]:
        legend = ax.get_legend()
        assert legend is not None
        legend.remove()
    return axes[0]


def named(measure: str) -> str:
    """A measure in words."""
    kind, _, words = measure.partition(":")
    return f"mean squared CCA ({words.partition(',')[0]} directions)" if kind == "svcca" else _NAMES[measure]


def key(measure: str) -> str:
    """A measure as part of a name."""
    return measure.partition(":")[0].removeprefix("sv")


def span(low: float, high: float, digits: str = ".3f") -> str:
    """A range, or one number where it is none."""
    ends = [f"{end:{digits}}" for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"

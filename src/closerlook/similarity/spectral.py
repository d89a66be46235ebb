"""Canonical correlation of convolution maps per spatial frequency (DFT-CCA: Raghu et al. 2017, section 2.2)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from closerlook.errors import UsageError
from closerlook.similarity import chance
from closerlook.similarity.cca import Summary, correlation_chance, usable
from closerlook.similarity.dft import Frequencies
from closerlook.similarity.pair import Layer, Pair
from closerlook.similarity.result import Similarity
from closerlook.similarity.spectral_sums import MapForm, SpectralSums
from closerlook.similarity.stream import Rows, Stream, checked
from closerlook.similarity.whitening import Whitening

Array = NDArray[np.float64]
DIMENSIONS, HINT = ("images", "channels", "height", "width"), "use Moments for matrices"
Whitenings = Sequence[tuple[Whitening, Whitening]]


class SpectralMoments(Stream):
    """Second moments of maps x [n, c, h, w] and y [n, d, h', w'] of the same n images, per spatial frequency.

    One accumulator for each frequency of the half spectrum (maps are real), summed as complex numbers of twice 64 bits;
    maps of different size share their low frequencies. Streams, merges, saves and loads like `Moments`, and takes the
    same parameters.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(300, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> moments = SpectralMoments()
    >>> moments.update(x[:100], x[:100].roll(1, 3))
    >>> moments.update(x[100:], x[100:].roll(1, 3))
    >>> moments.n, len(moments.frequencies.numbers), round(spectral_cca(moments).value, 9)
    (300, 10, 1.0)
    """

    @staticmethod
    def _make(form: MapForm, shift: Tensor) -> SpectralSums:
        return SpectralSums(form, shift)

    @staticmethod
    def _form_of(note: Mapping[str, Any]) -> MapForm:
        (a, b, c), (d, e, f) = note["x"], note["y"]
        return MapForm((a, b, c), (d, e, f))

    @property
    def frequencies(self) -> Frequencies:
        """The spatial frequencies that are compared."""
        return self._total().frequencies

    def update(self, maps_x: Rows, maps_y: Rows, group: Rows | None = None) -> None:
        """Add a batch of maps; `group` [n] numbers the group of each image (default: in turn)."""
        maps = {name: checked(name, maps, DIMENSIONS, HINT) for name, maps in (("x", maps_x), ("y", maps_y))}
        forms = [tuple(each.shape[1:]) for each in maps.values()]
        self._add(maps, self._form_of({"x": forms[0], "y": forms[1]}), group)

    def pairs(self) -> Iterator[Pair]:
        """The centred moments at each frequency, in the order of `frequencies.numbers`."""
        total = self._total()
        own_x, own_y, cross = total.centred()
        sides = []
        shapes = (total.form.x, total.form.y)
        for name, own, mean, shape in zip("xy", (own_x, own_y), total.means(), shapes, strict=True):
            lengths = own.diagonal(dim1=1, dim2=2).real + total.n * mean.abs().square()
            # Rounding in space spreads over all frequencies alike.
            floor = self._eps * (total.frequencies.weights @ lengths / prod(shape[1:])).clamp_min(0).sqrt()
            named = (f"{name} at spatial frequency {at}" for at in total.frequencies.numbers)
            facts = zip(named, repeat(total.n), own, mean, strict=False)
            sides.append([Layer(*each, float("nan"), floor, self._eps) for each in facts])
        for left, right, block in zip(*sides, cross, strict=True):
            yield Pair(left, right, block, float("nan"))


def spectral_cca(
    maps_x: SpectralMoments | Rows,
    maps_y: Rows | None = None,
    *,
    summary: Summary = "mean",
    insist: bool = False,
    seed: int = 0,
) -> Similarity:
    """DFT-CCA: the mean over all spatial frequencies of the canonical correlation of the channels there.

    At each frequency of the 2-D discrete Fourier transform the channels of both sides are complex vectors, one per
    image; their `cca` is averaged over the whole spectrum. At (0, 0) it is that of the maps averaged over space. The
    sample size is the number of images. Invariant to translation, circular shifts, invertible maps of the channels, and
    circular convolutions that are invertible at every frequency. `coefficients` are the values per frequency (one of
    each conjugate pair), `details` says which frequencies and with which weights.

    Parameters
    ----------
    maps_x, maps_y : maps [n, c, h, w] and [n, d, h', w'], or the `SpectralMoments` of them.
    summary, insist, seed : as for `cca`.

    Raises
    ------
    TooFewExamplesError, ConditionError
        As `cca`, at any frequency.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(300, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> round(float(spectral_cca(x, x.roll((1, 2), (2, 3)))), 9)
    1.0
    """
    moments = maps_x if isinstance(maps_x, SpectralMoments) else SpectralMoments()
    if not isinstance(maps_x, SpectralMoments):
        if maps_y is None:
            raise UsageError("spectral_cca compares two sides; give maps_y as well")
        moments.update(maps_x, maps_y)
    if summary not in ("mean", "r2"):
        raise UsageError(f"unknown summary {summary!r}; choose mean or r2")
    frequencies = moments.frequencies
    pairs = list(moments.pairs())
    kept = [f for f, pair in enumerate(pairs) if min(pair.ranks)]
    values = np.array([_value(pairs[f], summary) for f in kept])
    weights = frequencies.weights[kept].numpy() / float(frequencies.weights[kept].sum())
    notes = list(dict.fromkeys(note for f in kept for note in usable(pairs[f], insist)))
    if len(kept) < len(pairs):
        notes.append(f"{len(pairs) - len(kept)} of {len(pairs)} frequencies do not vary on a side and are left out")
    ranks = [pair.ranks for pair in pairs]
    alone = frequencies.weights == 1
    nulls = [correlation_chance(summary, ranks[f], moments.n, seed, beta=1 if alone[f] else 2) for f in kept]
    whitenings = [(pair.left.whitening, pair.right.whitening) for pair in pairs]
    x, y = moments._total().form.x, moments._total().form.y
    return Similarity(
        "spectral_cca", float(weights @ values) if kept else float("nan"), _mean_chance(nulls, weights), n=moments.n,
        ranks=(max(r for r, _ in ranks), max(r for _, r in ranks)), coefficients=values,
        dropped=_dropped(whitenings), condition=_largest(whitenings, kept), notes=tuple(notes),
        conventions={"summary": summary, "maps_x": list(x), "maps_y": list(y)},
        details={"frequencies": [frequencies.numbers[f] for f in kept], "weights": weights},
    )  # fmt: skip


def _value(pair: Pair, summary: Summary) -> float:
    if summary == "r2":
        return float(pair.whitened.abs().square().sum()) / min(pair.ranks)
    return float(pair.correlations.mean())


def _mean_chance(nulls: Sequence[chance.Chance], weights: Array) -> chance.Chance:
    how = f"mean over frequencies, each {nulls[0].how}" if nulls else "undefined"
    return chance.Chance(how, partial(_read_mean, nulls, weights), max((null.draws for null in nulls), default=0))


def _read_mean(nulls: Sequence[chance.Chance], weights: Array) -> tuple[float, float]:
    if not nulls:
        return float("nan"), float("nan")
    # Equal ranks share one simulation, so errors add up rather than average out.
    return float(weights @ [null.value for null in nulls]), float(weights @ [null.error for null in nulls])


def _dropped(whitenings: Whitenings) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels of each side that vary at no frequency."""
    dead = [set.intersection(*(set(both[side].dropped) for both in whitenings)) for side in (0, 1)]
    return tuple(sorted(dead[0])), tuple(sorted(dead[1]))


def _largest(whitenings: Whitenings, kept: Sequence[int]) -> tuple[float, float]:
    x, y = (max((whitenings[f][side].condition for f in kept), default=float("nan")) for side in (0, 1))
    return x, y

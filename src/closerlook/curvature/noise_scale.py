"""The noise scale of the gradient: how large a batch must be before its gradient is mostly signal."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import nn

from closerlook import figures
from closerlook.batches import BatchFn, Loader
from closerlook.curvature.gradient_sums import GradientSums, Noise
from closerlook.curvature.modes import BatchNorm
from closerlook.curvature.opened import Reading, opened
from closerlook.errors import UsageError
from closerlook.weights.blocks import Blocks, blocks_of


@dataclass(frozen=True, eq=False, kw_only=True)
class NoiseScale(Reading):
    """The simple noise scale, whole and per block; `float` gives the number of examples.

    The interval, of confidence `level`, is about other examples, by a jackknife over `groups` groups of batches.
    """

    noise: Noise
    blocks: Mapping[str, Noise]
    groups: int
    level: float

    @property
    def value(self) -> float:
        """The noise scale in examples."""
        return self.noise.scale

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values; what is infinite is None."""
        blocks = {name: _plain(block) for name, block in self.blocks.items()}
        return {**self.told(), **_plain(self.noise), "blocks": blocks, "groups": self.groups, "level": self.level}

    def to_frame(self) -> pd.DataFrame:
        """One row per block."""
        return pd.DataFrame([{"block": name, **asdict(block)} for name, block in self.blocks.items()])

    def plot(self, ax: Axes | None = None) -> Axes:
        """The noise scale of every block with its interval; what is infinite is left out."""
        found = np.array([(block.scale, block.low, block.high) for block in self.blocks.values()])
        found[~np.isfinite(found)] = np.nan
        lines: dict[str, dict[int | str, Any]] = {"noise scale": {0: found[:, 0]}}
        bands = {"noise scale": (found[:, 1], found[:, 2])}
        return figures.layer_profile(list(self.blocks), lines, "noise scale (examples)", ax, bands=bands)


def _plain(noise: Noise) -> dict[str, Any]:
    return {name: value if math.isfinite(value) else None for name, value in asdict(noise).items()}


def noise_scale(
    model: nn.Module,
    loader: Loader,
    *,
    per_block: bool | Blocks = True,
    params: str = "*",
    batch_norm: BatchNorm = "batch",
    level: float = 0.95,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> NoiseScale:
    """The simple noise scale ``tr(Sigma) / |G|^2``: the batch size at which noise and signal of a gradient are equal.

    From the gradients g_k of K batches of n_k independent examples, n in all, with mean g:
    ``tr(Sigma) = sum_k n_k |g_k - g|^2 / (K - 1)`` and ``|G|^2 = |g|^2 - tr(Sigma) / n``, both without bias for any
    sizes. One forward and backward pass over the loader; dropout is off, so its noise is not counted.

    The interval is that of the inverse ratio, whose denominator does not come near 0: jackknife over up to 20 groups of
    batches, inverted. Its upper end is infinite where |G|^2 may be 0. Memory: one vector of weights per group.

    Parameters
    ----------
    loader
        At least three batches, drawn independently: a sorted data set is none.
    per_block, batch_norm
        As in `sharpness`. Under ``"batch"`` a batch's size also changes its expected gradient.
    level
        Of the intervals.

    Raises
    ------
    NotFiniteError
        The loss or a gradient is NaN or infinite.
    LoaderError
        A one-shot or empty loader, or one that does not repeat.
    UsageError
        Fewer than three batches, or every parameter is frozen.

    Examples
    --------
    >>> from closerlook.batches import Output
    >>> def line(model, batch):  # the gradient of an example is the example itself
    ...     return Output(model(batch).squeeze(1), None)
    >>> x = torch.randn(6400, 5, generator=torch.Generator().manual_seed(0)) + 1
    >>> found = noise_scale(nn.Linear(5, 1, bias=False), x.split(64), batch_fn=line)
    >>> bool(found.noise.low < 1 < found.noise.high)
    True

    Source: McCandlish et al. 2018 (arXiv 1812.06162), equation 2.9 and appendix A.1, where two batch sizes are
    compared: these are the batches and all of them.
    """
    with opened(
        model, loader, params=params, batch_norm=batch_norm, batch_fn=batch_fn, device=device, autocast=autocast
    ) as site:
        whole = site.operator()
        every = {"": whole.names, **{f" {name}": names for name, names in blocks_of(whole.names, per_block).items()}}
        sums = GradientSums.of(whole, every)
    if sums.batches < 3:
        raise UsageError(f"the loader has {sums.batches} batches; the noise between them needs at least 3")
    found = {name: sums.noise(name, level) for name in every}
    return NoiseScale(
        noise=found.pop(""), blocks={name[1:]: value for name, value in found.items()}, groups=len(sums.groups),
        level=level, **site.told(whole, whole.passes),
    )  # fmt: skip

"""The trace of the Hessian, by random vectors."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from scipy.stats import t as student
from torch import nn

from closerlook import figures
from closerlook.batches import BatchFn, Loader
from closerlook.curvature.modes import BatchNorm
from closerlook.curvature.opened import Reading, opened
from closerlook.errors import UsageError
from closerlook.weights.blocks import Blocks, blocks_of, dots


@dataclass(frozen=True)
class Estimate:
    """A mean over random draws, its standard error, and Student's interval."""

    value: float
    error: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: Any, level: float) -> "Estimate":
        """The estimate from independent draws [m]."""
        mean, error = float(np.mean(draws)), float(np.std(draws, ddof=1)) / len(draws) ** 0.5
        reach = error * float(student.ppf((1 + level) / 2, len(draws) - 1))
        return cls(mean, error, mean - reach, mean + reach)


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace(Reading):
    """The trace of the Hessian of the mean loss; `float` gives the number.

    `estimate` is that of the whole Hessian, `blocks` those of its diagonal blocks, from the same `products`. The
    interval, of confidence `level`, is about the random vectors alone.
    """

    estimate: Estimate
    blocks: Mapping[str, Estimate]
    products: int
    level: float

    @property
    def value(self) -> float:
        """The estimate of the trace."""
        return self.estimate.value

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        blocks = {name: asdict(block) for name, block in self.blocks.items()}
        return {
            **self.told(), **asdict(self.estimate), "blocks": blocks, "products": self.products, "level": self.level
        }  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """One row per block."""
        return pd.DataFrame([{"block": name, **asdict(block)} for name, block in self.blocks.items()])

    def plot(self, ax: Axes | None = None) -> Axes:
        """The trace of every block with its interval."""
        found = list(self.blocks.values())
        lines: dict[str, dict[int | str, Any]] = {"trace": {0: [block.value for block in found]}}
        bands = {"trace": ([block.low for block in found], [block.high for block in found])}
        return figures.layer_profile(list(self.blocks), lines, "trace of the block's Hessian", ax, bands=bands)


def hessian_trace(
    model: nn.Module,
    loader: Loader,
    *,
    samples: int = 30,
    per_block: bool | Blocks = True,
    params: str = "*",
    batch_norm: BatchNorm = "batch",
    level: float = 0.95,
    seed: int = 0,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> Trace:
    """The trace of the Hessian of the mean loss, whole and per block: the mean of ``z' H z``.

    The entries of z are +1 or -1 at random, so its expectation is the trace; its variance is
    ``2 sum_{i != j} H_ij^2``, and that of block k, ``z_k' (H z)_k``, comes from the same products.

    Parameters
    ----------
    samples
        Number of random vectors, each a product with the Hessian: the error falls with its square root.
    per_block
        As in `sharpness`.
    batch_norm
        As in `sharpness`.
    level
        Of the intervals.

    Raises
    ------
    NotFiniteError
        The loss or a product is NaN or infinite.
    LoaderError
        A one-shot or empty loader, or one that does not repeat.
    UsageError
        Fewer than two samples, or every parameter is frozen.

    Examples
    --------
    >>> from closerlook.batches import Output
    >>> def squares(model, batch):
    ...     return Output((model(batch[0]) - batch[1]).square().sum(1), None)
    >>> x = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    >>> layer = nn.Linear(3, 1, bias=False)
    >>> round(float(hessian_trace(layer, [(x, torch.zeros(3, 1))], batch_fn=squares)), 4)
    9.3333

    Source: Hutchinson 1990 (Commun. Stat. Simul. 19).
    """
    if samples < 2:
        raise UsageError(f"samples={samples} has no standard error; take at least 2")
    with opened(
        model, loader, params=params, batch_norm=batch_norm, batch_fn=batch_fn, device=device, autocast=autocast
    ) as site:
        whole = site.operator()
        groups = blocks_of(whole.names, per_block)
        every = {"": whole.names, **{f" {name}": names for name, names in groups.items()}}
        source = torch.Generator().manual_seed(seed)
        draws: dict[str, list[float]] = {name: [] for name in every}
        for _ in range(samples):
            signs = torch.randint(0, 2, (whole.size,), generator=source).to(whole.device, whole.dtype) * 2 - 1
            for name, value in dots(signs, whole.product(signs), whole.spans(), every).items():
                draws[name].append(value)
    found = {name: Estimate.of(values, level) for name, values in draws.items()}
    return Trace(
        estimate=found.pop(""), blocks={name[1:]: value for name, value in found.items()}, products=whole.products,
        level=level, **site.told(whole, whole.passes),
    )  # fmt: skip

"""The barrier between two networks before and after what is known to lower it: statistics, alignment, REPAIR."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import nn

from closerlook import figures
from closerlook.alignment.align import alignment
from closerlook.alignment.repair import repairable, repaired
from closerlook.alignment.result import Alignment, Method
from closerlook.batches import BatchFn, Loader
from closerlook.errors import UsageError
from closerlook.evaluation import batch_norms
from closerlook.landscape import Barrier, Profile, line, polychain, profile
from closerlook.landscape.heights import Definition
from closerlook.landscape.reader import Splits
from closerlook.weights import WeightSpace

METRICS = ("loss", "error")


@dataclass(frozen=True, eq=False)
class AlignedBarriers:
    """Profiles of the straight segment between two networks, and the `alignment` that some of them are of.

    ``"raw"``: the line as it is, batch-norm statistics interpolated between the ends; ``"refreshed"``: statistics
    estimated anew at every point; ``"aligned"``: raw, with the second end permuted; ``"repaired"``: that with REPAIR,
    which is ``"refreshed"`` where there is batch norm. Without batch norm raw and refreshed are one.
    Where REPAIR cannot reach a layer ``"repaired"`` is left out, and `not_repaired` is the reason.
    """

    profiles: Mapping[str, Profile]
    alignment: Alignment
    not_repaired: str | None = None

    def barrier(
        self, line: str = "repaired", split: str = "train", metric: str = "loss", definition: Definition = "above_ends"
    ) -> Barrier:
        """The barrier of one of the lines, as `Profile.barrier` gives it.

        Raises
        ------
        UsageError
            There is no such line; or the network cannot be repaired, and why.
        """
        if line not in self.profiles:
            reason = f" (not repaired: {self.not_repaired})" if self.not_repaired else ""
            raise UsageError(f"no line {line!r}{reason}; choose one of {', '.join(self.profiles)}")
        return self.profiles[line].barrier(split, metric, definition)

    def to_frame(self, definition: Definition = "above_ends") -> pd.DataFrame:
        """One row per line, split and metric: height, interval over images, and where."""
        rows = []
        for name, found in self.profiles.items():
            for split in found.n:
                for metric in (metric for metric in METRICS if f"{split}_{metric}" in found.values):
                    each = found.barrier(split, metric, definition)
                    rows.append((name, split, metric, each.value, each.low, each.high, each.t))
        return pd.DataFrame(rows, columns=["line", "split", "metric", "barrier", "low", "high", "t"])

    def to_dict(self) -> dict[str, Any]:
        """Barriers, profiles, the alignment and why nothing was repaired, as plain lists and numbers."""
        return {
            "barriers": self.to_frame().to_dict("records"), "alignment": self.alignment.to_dict(),
            "not_repaired": self.not_repaired,
            "profiles": {name: found.to_dict() for name, found in self.profiles.items()},
        }  # fmt: skip

    def plot(self, split: str = "train", metric: str = "loss", ax: Axes | None = None) -> Axes:
        """The metric along the lines."""
        t = next(iter(self.profiles.values())).t
        lines: dict[str, dict[int | str, np.ndarray]] = {
            name: {0: found.metric(split, metric)} for name, found in self.profiles.items()
        }
        return figures.segments(t, lines, f"{split} {metric}" + (" (nats)" if metric == "loss" else ""), ax)

    def __str__(self) -> str:
        table = self.to_frame().pivot(index=["split", "metric"], columns="line", values="barrier")
        text = f"{self.alignment}\n{table[list(self.profiles)].to_string(float_format='{:.3g}'.format)}"
        return text if self.not_repaired is None else f"{text}\nnot repaired: {self.not_repaired}"


def aligned_barriers(
    model: nn.Module,
    a: Any,
    b: Any,
    splits: Splits | Loader,
    method: Method = "weights",
    *,
    stats_loader: Loader | None = None,
    points: int = 25,
    seed: int = 0,
    restarts: int = 5,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> AlignedBarriers:
    """Barriers of the straight segment between a and b: raw, refreshed, aligned, and aligned with REPAIR.

    A network that can be aligned but not repaired gets the other three, and the reason in `not_repaired`.

    Parameters
    ----------
    splits
        Loaders by name, such as ``{"train": loader, "test": test_loader}``; a bare loader counts as train.
    stats_loader
        Images for batch-norm statistics, REPAIR and activations. Default the split called train; better: training
        images on which no loss is read.
    points
        Number of equispaced positions t.

    Raises
    ------
    UsageError
        What `alignment` and `closerlook.profile` refuse; fewer than two points.

    Examples
    --------
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)) for _ in range(2))
    >>> found = aligned_barriers(a, a, b, data, points=3)
    >>> list(found.profiles), found.barrier("raw").points
    (['raw', 'refreshed', 'aligned', 'repaired'], 3)

    References
    ----------
    Ainsworth et al., arXiv 2209.04836; Jordan et al., arXiv 2211.08403; Frankle et al., arXiv 1912.05671.
    """
    loaders = splits if isinstance(splits, Mapping) else {"train": splits}
    images = stats_loader if stats_loader is not None else loaders.get("train")
    if images is None:
        raise UsageError("pass stats_loader, training images to align and repair on, or a split called 'train'")
    if points < 2:
        raise UsageError(f"a barrier needs both ends: at least two points, not {points}")
    given: dict[str, Any] = {"batch_fn": batch_fn, "device": device}
    space = WeightSpace(model)
    found = alignment(model, a, b, method, loader=images, seed=seed, restarts=restarts, **given)
    start, ends = space.point(a), {"raw": space.point(b), "aligned": found.point}
    not_repaired = None if batch_norms(model) else repairable(model, images, **given)
    profiles: dict[str, Profile] = {}
    for name, again in (("raw", "refreshed"), ("aligned", "repaired")):
        segment = line(start, ends[name])
        profiles[name] = profile(model, segment, loaders, points, batch_stats="interpolate", **given)
        if batch_norms(model):
            profiles[again] = profile(model, segment, loaders, points, stats_loader=images, **given)
        elif name == "raw":
            profiles[again] = profiles[name]
        elif not_repaired is None:
            chain = polychain(
                list(repaired(model, start, ends[name], np.linspace(0, 1, points).tolist(), images, **given))
            )
            profiles[again] = profile(model, chain, loaders, points, **given)
    return AlignedBarriers(profiles, found, not_repaired)

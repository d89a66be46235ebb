"""Profiles for people: barriers with all that they must carry, a figure, a few lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from closerlook import figures
from closerlook.cli.answer import columns
from closerlook.landscape import Profile, Surface
from closerlook.landscape.heights import Definition

_FROM: Mapping[Definition, str] = {
    "above_ends": "the worse end",
    "above_mean_of_ends": "the mean of both ends",
    "above_line": "the straight line between both ends",
}
_UNIT = {"loss": "cross-entropy in nats", "error": "share of wrong answers", "accuracy": "share of right answers"}


def barriers(name: str, profile: Profile, definition: Definition) -> list[dict[str, Any]]:
    """One row per split and metric of a profile."""
    rows = []
    for split in splits_of(profile):
        for metric in _UNIT:
            if f"{split}_{metric}" in profile.values:
                found = profile.barrier(split, metric, definition).to_dict()
                ends = profile.metric(split, metric)[[0, -1]].tolist()
                rows.append({"path": name, **found, "n": profile.n[split], "ends": ends})
    return rows


def table(rows: Sequence[Mapping[str, Any]], metric: str, statistics: int) -> str:
    """The barriers of one metric, and what such a number means nothing without."""
    chosen = [row for row in rows if row["metric"] == metric]
    header = ("path", "read on", "images", f"{metric} at A", "at B", "barrier", "at t")
    cells = [(r["path"], r["split"], r["n"], *r["ends"], r["value"], r["t"]) for r in chosen]
    return "\n".join([columns(header, cells), "", *(carried(row, statistics) for row in chosen[:1])])


def carried(row: Mapping[str, Any], statistics: int) -> str:
    """Definition, points, statistics and type of a barrier number, as a sentence."""
    return (
        f"Barrier: height above {_FROM[row['definition']]} ({row['definition']}) in {_UNIT[row['metric']]}, "
        f"{row['points']} points on t,\n{policy(row['batch_stats'], statistics)}, weights {row['dtype']}."
    )


def policy(batch_stats: str, statistics: int) -> str:
    """Where the batch-norm statistics came from."""
    estimated = batch_stats in ("recompute", "reference")
    images = f" on {statistics:,} training images that carry no loss" if estimated else ""
    return f"batch-norm statistics: {batch_stats}{images}"


def own_ends(profile: Profile, metric: str) -> list[str]:
    """The ends with the batch-norm statistics that they came with: the numbers that their owner knows."""
    lines = []
    for name, end in zip("AB", profile.ends, strict=True):
        known = [
            f"{split} {end[f'{split}_{metric}']:.4g}" for split in splits_of(profile) if f"{split}_{metric}" in end
        ]
        lines += [f"{name} with its own statistics: {metric} {', '.join(known)}"] if known else []
    return lines


def drawing(profiles: Mapping[str, Profile], metric: str) -> Axes:
    """Segment, curve or both, one panel per split; the first of the axes."""
    first = next(iter(profiles.values()))
    axes = figures.panels(len(first.n))
    for ax, split in zip(axes, splits_of(first), strict=True):
        lines: dict[str, dict[int | str, np.ndarray]] = {"segment": {}, "curve": {}}
        lines |= {name: {0: found.metric(split, metric)} for name, found in profiles.items()}
        label = f"{split} {metric}" + (" (nats)" if metric == "loss" else "")
        figures.path(first.t, lines["segment"], lines["curve"], ylabel=label, ax=ax)
    return axes[0]


def splits_of(found: Profile | Surface) -> list[str]:
    """The splits of stored numbers, which come back in alphabetical order, in ours."""
    return sorted(found.n, key=("train", "test").index)

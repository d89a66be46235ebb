"""Profiles for people: barriers with all that they must carry, a figure, a few lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any

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


def barriers(name: str, profile: Profile, definition: Definition, level: float = 0.95) -> list[dict[str, Any]]:
    """One row per split and metric of a profile."""
    rows = []
    for split in splits_of(profile):
        for metric in _UNIT:
            if f"{split}_{metric}" in profile.values:
                found = profile.barrier(split, metric, definition, level).to_dict()
                ends = profile.metric(split, metric)[[0, -1]].tolist()
                rows.append({"path": name, **found, "n": profile.n.get(split), "ends": ends})
    return rows


def table(rows: Sequence[Mapping[str, Any]], metric: str, statistics: int) -> str:
    """The barriers of one metric, and what such a number means nothing without."""
    chosen = [row for row in rows if row["metric"] == metric]
    header = ("path", "read on", "images", f"{metric} at A", "at B", "barrier", "low", "high", "at t")
    cells = [(r["path"], r["split"], r["n"], *r["ends"], r["value"], r["low"], r["high"], r["t"]) for r in chosen]
    return "\n".join([columns(header, cells), "", *(carried(row, statistics) for row in chosen[:1])])


def interval(row: Mapping[str, Any]) -> str:
    """What the low and high ends of a barrier are about, as a sentence; nothing where it has none."""
    about = {"population": "over other images of this kind", "loader": "of the reading of all images"}
    if row.get("low") is None:
        return ""
    return f"\nLow and high: {row['level']:.0%} interval {about[row['interval_of']]}; it says nothing of other seeds."


def carried(row: Mapping[str, Any], statistics: int) -> str:
    """Definition, points, statistics and type of a barrier number, as a sentence."""
    return (
        f"Barrier: height above {_FROM[row['definition']]} ({row['definition']}) in {_UNIT[row['metric']]}, "
        f"{row['points']} points on t,\n{policy(row['batch_stats'], statistics)}, weights {row['dtype']}."
        f"{interval(row)}"
    )


def policy(batch_stats: str, statistics: int) -> str:
    """Where the batch-norm statistics came from; 0 where the number of images is not known."""
    estimated = batch_stats in ("recompute", "reference")
    images = f" on {statistics:,} training images that carry no loss" if estimated and statistics else ""
    return f"batch-norm statistics: {batch_stats}{images}"


def work(profiles: Mapping[str, Profile]) -> list[str]:
    """What the readings cost, and how far they are from full precision where that is known."""
    total = sum(found.evaluations for found in profiles.values())
    told = next(iter(profiles.values())).told
    lines = [f"Read in {told['precision']}, {told['layout']}; {total:,} images through the network."]
    for name, found in profiles.items():
        differences = ", ".join(f"{metric} {value:.2g}" for metric, value in found.precision_errors.items())
        lines += [f"Largest difference from fp32 on the {name}: {differences}"] if differences else []
    return lines


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
    axes = figures.panels(len(splits_of(first)))
    for ax, split in zip(axes, splits_of(first), strict=True):
        drawn = [
            (found.t, line)
            for found in profiles.values()
            for line in (found.metric(split, metric), *_band(found, split, metric))
        ]
        t, lines = figures.aligned(drawn)
        values: dict[str, dict[int | str, Any]] = {
            name: {0: line} for name, line in zip(profiles, lines[::3], strict=True)
        }
        bands = list(zip(lines[1::3], lines[2::3], strict=True))
        label = f"{split} {metric}" + (" (nats)" if metric == "loss" else "")
        figures.path(t, values.get("segment", {}), values.get("curve", {}), ylabel=label, bands=bands, ax=ax)
    return axes[0]


def _band(found: Profile, split: str, metric: str) -> tuple[Any, Any]:
    """The interval along the path; no wider than the line where the images' spread is not known."""
    line = found.metric(split, metric)
    return found.interval(split, metric) if f"{split}_{metric}" in found.covariance else (line, line)


def splits_of(found: Profile | Surface) -> list[str]:
    """The splits of stored numbers, which come back in alphabetical order, in ours."""
    return sorted({name.rpartition("_")[0] for name in found.values}, key=("train", "test").index)

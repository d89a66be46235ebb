"""``closerlook barrier``: barriers between every two of some checkpoints."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from tyro.conf import Positional, arg

from closerlook.cli import profiles
from closerlook.cli.answer import answer, columns
from closerlook.cli.options import DryRun, First, Jobs, Json, Level, Out, Positive, Second, Tolerance, at_least
from closerlook.cli.outputs import folder_for, write
from closerlook.cli.points import labels, references, weights
from closerlook.cli.subject import Subject
from closerlook.cli.work import dry, finish
from closerlook.landscape import BarrierMatrix, Profile
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import BatchStats, ProfileRecipe, Split
from closerlook.runs.store import Store

Pair = tuple[int, int]


def barrier(
    a: First,
    b: Second,
    more: Annotated[Positional[tuple[Path, ...]], arg(metavar="[C ...]", help_behavior_hint="")],
    subject: Subject,
    split: Split = "train",
    batch_stats: BatchStats = "recompute",
    read_size: Positive = 500,
    positions: Annotated[int, at_least(3), arg(name="points")] = 11,
    tolerance: Tolerance = None,
    level: Level = 0.95,
    jobs: Jobs = 1,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Read the loss barrier on the straight segment between every two of the checkpoints A, B, C, ...

    A barrier is the highest loss on the segment above the worse of its two ends (above_ends), in nats. Writes
    barrier.json, barrier.csv, barrier.svg and barrier.png. The same command again reuses what is finished, and with
    one more checkpoint it reads the new segments alone; for other definitions, other metrics and the curve beside the
    segment see closerlook path.

    Parameters
    ----------
    a
        A checkpoint.
    b
        Another one.
    more
        Any number of others.
    split
        Images that the losses are read on: a part of the training images, or the test part.
    batch_stats
        What batch norm uses at each point; the help of closerlook path says more.
    read_size
        Images per batch of a reading.
    positions
        Equispaced positions t on each segment, both ends included.

    Examples
    --------
    closerlook barrier a.pt b.pt --model mymodule:network --data mymodule:data
    closerlook barrier run1.pt run2.pt run3.pt --model vgg11_bn --data fashion --split test --points 25
    closerlook barrier run1.pt run2.pt run3.pt --model vgg11_bn --data fashion --points 61 --tolerance 0.01 --jobs 2
    """
    checkpoints = (a, b, *more)
    specs, store, names = subject.specs(checkpoints), Store(subject.runs), labels(checkpoints)
    weights(checkpoints, specs)
    recipes = {
        pair: ProfileRecipe(
            **specs, points=ends, t=positions, splits=(split,), batch_stats=batch_stats, batch_size=read_size,
            tolerance=tolerance, level=level,
        )
        for pair, ends in zip(combinations(range(len(names)), 2), combinations(references(checkpoints), 2), strict=True)
    }  # fmt: skip
    if dry_run:
        return dry(recipes.values(), store, json)
    finish(recipes.values(), store, jobs)
    runs = {f"{names[i]} to {names[j]}": run_id(recipe) for (i, j), recipe in recipes.items()}
    stored = {pair: store.folder(recipe).result("profile") for pair, recipe in recipes.items()}
    read = {pair: Profile.from_dict(each) for pair, each in stored.items()}
    found = BarrierMatrix(tuple(names), {pair: each.barrier(split, level=level) for pair, each in read.items()})
    pairs = rows(found, {pair: each["length"] for pair, each in stored.items()})
    result = {"runs": runs, **found.to_dict(), "n": read[0, 1].n[split], "pairs": pairs}
    folder = folder_for("barrier", runs, subject.runs, out)
    paths = write(folder, "barrier", result, pd.DataFrame(pairs), {"": found.plot()})
    header = ("from", "to", "barrier", "low", "high", "at t", "points", "distance of weights")
    lines = [
        columns(header, [list(row.values()) for row in pairs]), "",
        f"Read on {result['n']:,} {split} images. {profiles.carried(result, specs['data'].n_statistics)}",
        *profiles.work({run: read[pair] for pair, run in zip(read, runs, strict=True)}),
        *map(str, paths),
    ]  # fmt: skip
    answer({**result, "files": paths}, "\n".join(lines), json)
    return 0


def rows(found: BarrierMatrix, distances: Mapping[Pair, float]) -> list[dict[str, Any]]:
    """One row per pair of checkpoints."""
    return [
        {
            "a": found.labels[i], "b": found.labels[j], "barrier": each.value, "low": each.low, "high": each.high,
            "t": each.t, "points": each.points, "distance": distances[i, j],
        }
        for (i, j), each in found.pairs.items()
    ]  # fmt: skip

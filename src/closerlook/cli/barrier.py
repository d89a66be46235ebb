"""``closerlook barrier``: barriers between every two of some checkpoints."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from tyro.conf import Positional, arg

from closerlook import figures
from closerlook.cli.answer import answer, columns
from closerlook.cli.options import DryRun, First, Json, Out, Positive, Second, at_least
from closerlook.cli.outputs import folder_for, write
from closerlook.cli.points import labels, references, weights
from closerlook.cli.profiles import carried
from closerlook.cli.subject import Subject
from closerlook.cli.work import dry, finish
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import BarriersRecipe, BatchStats, Split
from closerlook.runs.store import Store
from closerlook.steps.setting import parts


def barrier(
    a: First,
    b: Second,
    more: Annotated[Positional[tuple[Path, ...]], arg(metavar="[C ...]", help_behavior_hint="")],
    subject: Subject,
    split: Split = "train",
    batch_stats: BatchStats = "recompute",
    read_size: Positive = 500,
    positions: Annotated[int, at_least(3), arg(name="points")] = 11,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Read the loss barrier on the straight segment between every two of the checkpoints A, B, C, ...

    A barrier is the highest loss on the segment above the worse of its two ends (above_ends), in nats. Writes
    barrier.json, barrier.csv, barrier.svg and barrier.png. The same command again reuses what is finished; for other
    definitions, other metrics and the curve beside the segment see closerlook path.

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
    """
    checkpoints = (a, b, *more)
    specs, store, names = subject.specs(checkpoints), Store(subject.runs), labels(checkpoints)
    weights(checkpoints, specs)
    recipe = BarriersRecipe(
        **specs, points=dict(zip(names, references(checkpoints), strict=True)), t=positions, splits=(split,),
        batch_stats=batch_stats, batch_size=read_size,
    )  # fmt: skip
    if dry_run:
        return dry([recipe], store, json)
    finish([recipe], store)
    n = specs["data"].n_read if split == "train" else len(parts(specs["data"]).test.targets)
    result = {"runs": {"barriers": run_id(recipe)}, **store.folder(recipe).result("barriers"), "split": split, "n": n}
    folder = folder_for("barrier", result["runs"], subject.runs, out)
    pairs = table(result)
    ax = figures.matrix(result["values"], result["labels"], f"loss barrier on {split} images, above the worse end")
    paths = write(folder, "barrier", result, pd.DataFrame(pairs, columns=["a", "b", "barrier", "distance"]), {"": ax})
    lines = [
        columns(("from", "to", "barrier", "distance of weights"), pairs), "",
        f"Read on {n:,} {split} images. " + carried(result, specs["data"].n_statistics), *map(str, paths),
    ]  # fmt: skip
    answer({**result, "files": paths}, "\n".join(lines), json)
    return 0


def table(result: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """One row per pair of checkpoints."""
    return [
        (first, second, result["values"][i][j], result["distances"][i][j])
        for (i, first), (j, second) in combinations(enumerate(result["labels"]), 2)
    ]

"""``closerlook path``: losses on the way between two checkpoints, straight and along a trained curve."""

from typing import Annotated

import pandas as pd
from tyro.conf import arg

from closerlook.cli import curves, profiles
from closerlook.cli.answer import answer
from closerlook.cli.options import DryRun, First, Jobs, Json, Level, Metric, Out, Second, Tolerance, at_least
from closerlook.cli.outputs import folder_for, write
from closerlook.cli.points import references, weights
from closerlook.cli.settings import Curve, Reading
from closerlook.cli.subject import Subject
from closerlook.cli.work import dry, finish
from closerlook.landscape.heights import Definition
from closerlook.runs.store import Store


def path(
    a: First,
    b: Second,
    subject: Subject,
    curve: Curve,
    reading: Reading,
    positions: Annotated[int, at_least(3), arg(name="points")] = 25,
    metric: Metric = "loss",
    definition: Definition = "above_ends",
    tolerance: Tolerance = None,
    level: Level = 0.95,
    jobs: Jobs = 1,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Read losses on the way from checkpoint A to checkpoint B: straight, and along a trained curve.

    Checkpoints are state dicts in .safetensors or .pt files, read without running code and matched to the network by
    name and shape. The answer are barriers with everything that such a number must carry; path.json, path.csv,
    path.svg and path.png hold the rest. The same command again reuses what is finished and goes on where it stopped.

    Parameters
    ----------
    a
        Where the path starts (t = 0).
    b
        Where it ends (t = 1).
    positions
        Equispaced positions t, both ends included.
    metric
        What is drawn and printed; the files hold all three.
    definition
        What a barrier's height is measured from: the worse end, the mean of both, or the line between them.

    Examples
    --------
    closerlook path a.pt b.pt --model mymodule:network --data mymodule:data
    closerlook path a.pt b.pt --model mymodule:network --data mymodule:data --kind bezier --epochs 30 --dry-run
    closerlook path a.pt b.pt --model vgg11_bn --model-options width=0.25 head=linear --data fashion --epochs 0
    closerlook path a.pt b.pt --model vgg11_bn --data fashion --points 61 --tolerance 0.01
    closerlook path runs/train-1a2b3c4d/checkpoints/step-000100.safetensors b.safetensors
    """
    specs, store = subject.specs((a, b)), Store(subject.runs)
    weights((a, b), specs)
    read = {**reading.of(specs), "t": positions, "tolerance": tolerance, "level": level}
    recipes = curves.plan(references((a, b)), specs, curve, read, subject.seed)
    if dry_run:
        return dry(recipes.values(), store, json)
    finish(recipes.values(), store, jobs)
    result = curves.read(recipes, store, definition, level)
    found = curves.profiles_in(result)
    frame = pd.concat([profile.to_frame().assign(path=name) for name, profile in found.items()])
    folder = folder_for("path", result["runs"], subject.runs, out)
    paths = write(folder, "path", result, frame, {"": profiles.drawing(found, metric)})
    text = [
        profiles.table(result["barriers"], metric, specs["data"].n_statistics),
        *profiles.own_ends(found["segment"], metric),
        *curves.training(result),
        *profiles.work(found),
        *map(str, paths),
    ]
    answer({**result, "files": paths}, "\n".join(text), json)
    return 0

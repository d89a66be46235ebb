"""``closerlook diagnose``: short trainings that find out whether a heuristic is needed."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from closerlook.cli.answer import answer
from closerlook.cli.names import seed_list
from closerlook.cli.options import DryRun, Json, Positive, Real, Runs
from closerlook.cli.pairs import read_pairs
from closerlook.cli.work import price_list, priced
from closerlook.diagnosis import Settings, recipes_of, run, settings_for
from closerlook.diagnosis.cost import Estimate, estimate
from closerlook.diagnosis.run import folder_of
from closerlook.errors import UsageError
from closerlook.launch import Progress
from closerlook.report.words import duration
from closerlook.runs.store import Store

_named = arg(metavar="NAME|MODULE:FUNCTION", help_behavior_hint="(required)")


def warmup(
    model: Annotated[str, _named],
    data: Annotated[str, _named],
    lr: Annotated[Real, arg(help_behavior_hint="(required)")],
    batch: Annotated[Positive, arg(help_behavior_hint="(required)")],
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd",
    momentum: Real = 0.9,
    weight_decay: Real = 0.0,
    steps: Positive = 300,
    seeds: Annotated[str, arg(metavar="0-2")] = "0-2",
    lengths: Annotated[
        tuple[Positive, ...], arg(metavar="N ...", help_behavior_hint="(default: a 12th, 6th and 3rd of the steps)")
    ] = (),
    block: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="NAME=PATTERN", help_behavior_hint="(again for more; default: at most five, by depth)"),
    ] = (),
    clip: Real = 1.0,
    model_options: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="")] = (),
    resolution: Annotated[Positive | None, arg(help_behavior_hint="")] = None,
    jobs: Positive = 1,
    runs: Runs = Path("runs"),
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Find out whether a network needs a warmup at a learning rate, of how many steps, and because of which block.

    For each seed it trains the first few hundred steps at that rate: without warmup, with warmups of several lengths,
    with each block alone warmed up, with it alone frozen, with the gradient clipped, and at a quarter of the rate. It
    says how many seeds are unstable, what removes that, and what to do. Finished trainings are reused, and a command
    that was stopped goes on when it is started again. diagnosis.json, figures and report.html lie in runs/diagnosis-...

    Parameters
    ----------
    model
        A built-in network (closerlook ls models), or your function that returns an nn.Module.
    data
        A built-in data set (closerlook ls data), or your function that returns (train, validation, test): each a
        pair (inputs, targets) or a Dataset.
    lr
        The learning rate in question, held constant.
    batch
        Examples per step.
    optimizer
        What takes the steps.
    momentum
        Of SGD; Adam and AdamW have their own.
    weight_decay
        As PyTorch's optimizer of that name takes it.
    steps
        Steps of each training, rounded up to whole epochs.
    seeds
        Seeds, such as 0-2 or 0,5: of the initial weights and the order of the data.
    lengths
        Lengths of warmup in steps; the longest is what the others, and the blocks, are measured by.
    block
        Parameters that are warmed up and frozen together, such as head='fc.*'; the same name again adds to it. Without
        any, the layers are grouped by depth.
    clip
        Norm to which the gradient is clipped in the training that clips.
    model_options
        Settings of the network, such as width=0.25.
    resolution
        Side of a built-in data set's images.
    jobs
        Trainings at a time, each on one core.

    Examples
    --------
    closerlook diagnose warmup --model mymodule:network --data mymodule:data --lr 0.5 --batch 100 --dry-run
    closerlook diagnose warmup --model mymodule:network --data mymodule:data --lr 0.003 --batch 50 --optimizer adamw
    closerlook diagnose warmup --model vgg11_bn --data fashion --resolution 16 --lr 1 --batch 500 --jobs 2
    """
    settings = settings_for(
        model, data, lr=lr, batch=batch, optimizer=optimizer, momentum=momentum, weight_decay=weight_decay,
        steps=steps, seeds=seed_list(seeds) or (), lengths=lengths or None, blocks=_blocks(block), clip=clip,
        model_options=read_pairs(model_options), resolution=resolution,
    )  # fmt: skip
    recipes = recipes_of(settings)
    rows = priced(recipes.values(), Store(runs))
    cost = estimate(settings, [row["run"] for row in rows if row["state"] == "done"])
    if dry_run:
        answer(_price(settings, rows, cost, runs, jobs), f"{price_list(rows)}\n{_said(settings, cost, jobs)}", json)
        return 0
    print(f"closerlook: {_said(settings, cost, jobs)}", file=sys.stderr, flush=True)
    progress = Progress(len(recipes))
    try:
        found = run(settings, runs, jobs, progress, _command(settings))
    finally:
        progress.close()
    told = {**found.to_dict(), "cpu_seconds": found.outcomes.cpu_seconds}
    answer({**told, "folder": found.folder, "report": found.report}, f"{found}\nreport: {found.report}", json)
    return 0


def _command(s: Settings) -> str:
    """What to type for the same settings, in full."""
    words = ["--model", s.model.name, "--data", s.data.name, "--lr", f"{s.optimizer.lr}", "--batch", f"{s.batch_size}"]
    words += ["--optimizer", s.optimizer.name, "--momentum", f"{s.optimizer.momentum}"]
    words += ["--weight-decay", f"{s.optimizer.weight_decay}", "--steps", f"{s.steps}", "--clip", f"{s.clip}"]
    words += ["--seeds", ",".join(map(str, s.seeds)), "--lengths", *map(str, s.lengths)]
    for name, patterns in s.blocks.items():
        words += [word for pattern in patterns for word in ("--block", f"{name}={pattern}")]
    if s.model.options:
        words += ["--model-options", *(f"{name}={value}" for name, value in s.model.options.items())]
    if s.data.resolution:
        words += ["--resolution", f"{s.data.resolution}"]
    return shlex.join(["closerlook", "diagnose", "warmup", *words])


def _blocks(given: tuple[str, ...]) -> dict[str, list[str]] | None:
    pairs = [word.partition("=") for word in given]
    wrong = ["".join(pair) for pair in pairs if not all(pair)]
    if wrong:
        raise UsageError(f"cannot read --block {wrong[0]!r}; write NAME=PATTERN, such as head='fc.*'")
    found: dict[str, list[str]] = {}
    for name, _, pattern in pairs:
        found.setdefault(name, []).append(pattern)
    return found or None


def _price(settings: Settings, rows: list[dict[str, Any]], cost: Estimate, root: Path, jobs: int) -> dict[str, Any]:
    return {
        **cost.to_dict(),
        "jobs": jobs,
        "folder": folder_of(settings, root),
        "blocks": settings.blocks,
        "steps": rows,
    }


def _said(settings: Settings, cost: Estimate, jobs: int) -> str:
    blocks = "\n".join(f"  {name}: {' '.join(patterns)}" for name, patterns in settings.blocks.items())
    if not cost.runs:
        return f"all {cost.of} trainings are done; blocks:\n{blocks}"
    return (
        f"{cost.runs} of {cost.of} trainings left, {cost.optimizer_steps:,} steps in all, about "
        f"{duration(cost.seconds / jobs)} with {jobs} at a time (from three steps and a Hessian product timed here); "
        f"blocks:\n{blocks}"
    )

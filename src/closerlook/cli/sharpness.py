"""``closerlook sharpness``: the curvature of the loss at checkpoints, and what a learning rate can bear."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from closerlook.cli.answer import answer, columns
from closerlook.cli.curving import Curving, Steps
from closerlook.cli.options import DryRun, First, Json
from closerlook.cli.points import labels, references
from closerlook.cli.subject import Subject
from closerlook.cli.work import dry, finish
from closerlook.curvature.thresholds import against
from closerlook.errors import UsageError
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import DataSpec, SharpnessRecipe
from closerlook.runs.store import Store
from closerlook.steps.setting import network, parts
from closerlook.weights import WeightSpace

_HANDLED = {"batch": "each batch's own statistics", "running": "running statistics, as constants"}


def sharpness(
    a: First,
    more: Annotated[Positional[tuple[Path, ...]], arg(metavar="[B ...]", help_behavior_hint="")],
    subject: Subject,
    curving: Curving,
    steps: Steps,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Read the sharpness of the loss at checkpoints: the largest eigenvalues of the Hessian, and where they lie.

    Each eigenvalue with a bound on its error, the share of its vector in every layer, and the critical learning rate,
    at which a step along the gradient stops to lower the loss. With --lr also whether the sharpness is above or below
    what SGD can bear. Of the mean loss without weight decay, in fp32, with dropout off. The same command again reuses
    what is finished, also for another learning rate. The seed draws the start of the search too.

    Parameters
    ----------
    a
        A checkpoint.
    more
        Any number of others, of the same network.

    Examples
    --------
    closerlook sharpness a.pt --model mymodule:network --data mymodule:data --lr 0.1 --momentum 0.9
    closerlook sharpness a.pt --model vgg11_bn --data fashion --examples 1000 --batch-size 100 --blocks layers
    closerlook sharpness start.pt end.pt --model mymodule:network --data mymodule:data --block "head=fc.*" --top 3
    """
    checkpoints = (a, *more)
    names, threshold = labels(checkpoints), steps.threshold()
    specs, store = subject.specs(checkpoints), Store(subject.runs)
    model = network(specs["model"], specs["data"], seed=0)
    space = WeightSpace(model)
    for checkpoint in checkpoints:
        space.point(checkpoint)
    _enough(specs["data"], curving)
    settings = {**specs, **curving.of(model), "seed": subject.seed}
    recipes = [SharpnessRecipe(**settings, point=point) for point in references(checkpoints)]
    if dry_run:
        return dry(recipes, store, json)
    finish(recipes, store)
    found = {
        name: judged(store.folder(recipe).result("sharpness"), threshold)
        for name, recipe in zip(names, recipes, strict=True)
    }
    runs = dict(zip(names, map(run_id, recipes), strict=True))
    result = {
        "runs": runs, "split": curving.split, "batch_size": curving.batch_size, **threshold, "checkpoints": found,
    }  # fmt: skip
    answer(result, text(result), json)
    return 0


def _enough(data: DataSpec, curving: Curving) -> None:
    held = len(parts(data).read.targets if curving.split == "train" else parts(data).test.targets)
    if curving.examples is not None and curving.examples > held:
        more = "; raise --n-read" if curving.split == "train" else ""
        raise UsageError(f"--examples {curving.examples:,}, and {held:,} {curving.split} images to read{more}")


def judged(found: Mapping[str, Any], threshold: Mapping[str, float]) -> dict[str, Any]:
    """A stored result, with the sharpness over the threshold where there is one, and the word for it."""
    if not threshold:
        return dict(found)
    value, residual, bound = found["values"][0], found["residuals"][0], threshold["threshold"]
    return {**found, "of_threshold": value / bound, "verdict": against(value, residual, bound)}


def text(result: Mapping[str, Any]) -> str:
    """One row per checkpoint, one per block, and what was read."""
    found = result["checkpoints"]
    rows = [row(name, each) for name, each in found.items()]
    table = columns(list(rows[0]), [list(each.values()) for each in rows])
    return "\n\n".join([table, _where(found), "\n".join(_said(result))])


def row(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint came to, by the names of the columns."""
    values: dict[str, float] = {}
    for rank, (value, residual) in enumerate(zip(found["values"], found["residuals"], strict=True), start=1):
        which = f" {rank}" if rank > 1 else ""
        values |= {f"eigenvalue{which}": value, f"residual{which}": residual}
    judged = {"of threshold": found["of_threshold"], "": found["verdict"]} if "verdict" in found else {}
    return {
        "checkpoint": name, **values, **judged, "critical rate": found["critical_lr"]["value"],
        "loss": found["loss"], "products": found["products"],
        "passes": found["passes"] + found["critical_lr"]["passes"],
    }  # fmt: skip


def _where(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Per block the share of the top vector in each checkpoint, and the block's own eigenvalue where it was read."""
    header, rows = ["block"], [[name] for name in next(iter(found.values()))["shares"]]
    for name, each in found.items():
        of = f", {name}" if len(found) > 1 else ""
        header += [f"share of the top vector{of}", *([f"eigenvalue alone{of}", "residual"] if each["blocks"] else [])]
        for block in rows:
            own = each["blocks"].get(block[0])
            block += [each["shares"][block[0]], *([own["value"], own["residual"]] if own else [])]
    return columns(header, rows)


def _said(result: Mapping[str, Any]) -> list[str]:
    first = next(iter(result["checkpoints"].values()))
    batches = "1 batch" if first["batches"] == 1 else f"{first['batches']} batches of {result['batch_size']}"
    lines = [
        f"{first['n']:,} {result['split']} images in {batches}, {first['parameters']:,} trained parameters; "
        f"batch norm, if any: {_HANDLED[first['batch_norm']]}.",
        "An eigenvalue lies within the residual of the number. A pass is one forward and backward over the images.",
    ]
    if "threshold" in result:
        rate = f"learning rate {result['lr']:g} and momentum {result['momentum']:g}"
        bound = f"SGD with {rate} is stable below {result['threshold']:.4g}"
        lines.append(f"{bound}, with full batches; the noise of small ones lowers that.")
    if first["frozen"]:
        lines.append(f"Left out, frozen: {', '.join(first['frozen'])}.")
    for name, each in result["checkpoints"].items():
        if not each["converged"]:
            lines.append(f"{name}: the tolerance was not met in {each['products']} products; take a larger one.")
        if each["critical_lr"]["note"]:
            lines.append(f"{name}, critical rate: {each['critical_lr']['note']}.")
    return lines

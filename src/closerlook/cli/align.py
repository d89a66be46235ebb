"""``closerlook align``: checkpoint B with its hidden units in the order of A's, and what barriers are left."""

from typing import Annotated, Literal

from matplotlib.axes import Axes
from torch import nn
from tyro.conf import arg

from closerlook import files
from closerlook.alignment import AlignedBarriers, Alignment, repairable, trace
from closerlook.batches import Loader
from closerlook.cli.answer import answer, columns
from closerlook.cli.options import DryRun, First, Jobs, Json, Out, Positive, Second, at_least
from closerlook.cli.outputs import folder_for, write
from closerlook.cli.points import references, weights
from closerlook.cli.segments import segments
from closerlook.cli.settings import Splits
from closerlook.cli.subject import Subject
from closerlook.cli.work import dry, finish
from closerlook.evaluation import batch_norms
from closerlook.landscape import Profile
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import AlignRecipe, Recipe
from closerlook.runs.store import Store
from closerlook.steps.align import batches_to_align_on
from closerlook.steps.setting import network
from closerlook.weights import WeightSpace

_CARRIED = """Barrier: height above the worse end (above_ends), {} points on t; the loss in nats.
Low and high: 95% interval over other images of this kind; it says nothing of other seeds."""


def align(
    a: First,
    b: Second,
    subject: Subject,
    method: Literal["weights", "activations"] = "weights",
    restarts: Positive = 5,
    splits: Splits = ("train", "test"),
    read_size: Positive = 500,
    positions: Annotated[int, at_least(3), arg(name="points")] = 25,
    jobs: Jobs = 1,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Permute the hidden units of checkpoint B so that it lies near A: the same function, other weights.

    Which units can change places is found by following a batch through the network. Then the barrier on the straight
    segment is read four times: raw (batch-norm statistics of A and B mixed), refreshed (statistics estimated anew), and
    both again with B permuted: aligned, and repaired, where without batch norm every point gets its activations' means
    and spreads from those of the ends (REPAIR); where a layer forbids that, the other lines are read. Writes
    aligned.safetensors, which every verb takes for a checkpoint, alignment.json, alignment.csv, alignment.svg and
    alignment.png. The same command again reuses what is finished.

    Parameters
    ----------
    a
        A checkpoint, which stays as it is.
    b
        Another one of the same network.
    method
        What is matched: all weights, or the activations on images that carry no loss.
    restarts
        Starts of weight matching; the nearest result is kept.
    splits
        Images that the losses are read on.
    read_size
        Images per batch of a reading.
    positions
        Equispaced positions t on each segment, both ends included.

    Examples
    --------
    closerlook align a.pt b.pt --model mymodule:network --data mymodule:data
    closerlook align a.pt b.pt --model vgg11_bn --data fashion --method activations --splits train
    """
    specs, store = subject.specs((a, b)), Store(subject.runs)
    weights((a, b), specs)
    model, (first, second) = network(specs["model"], specs["data"], seed=0), references((a, b))
    reading = {**specs, "batch_size": read_size}
    made = AlignRecipe(**reading, a=first, b=second, method=method, restarts=restarts, seed=subject.seed)
    not_repaired = _followed(model, batches_to_align_on(specs["data"], read_size))
    told = {**reading, "splits": splits, "t": positions}
    lines = segments(told, made, bool(batch_norms(model)), not_repaired is None)
    every: tuple[Recipe, ...] = (made, *lines.values())
    recipes = {run_id(recipe): recipe for recipe in every}  # raw and refreshed may be one
    if dry_run:
        return dry(recipes.values(), store, json)
    finish(recipes.values(), store, jobs)
    runs = {name: run_id(recipe) for name, recipe in {"align": made, **lines}.items()}
    folder = folder_for("align", runs, subject.runs, out)
    checkpoint = folder / "aligned.safetensors"
    files.write_tensors(checkpoint, files.read_tensors(store.folder(made).path / "results" / checkpoint.name)[0])
    found = AlignedBarriers(
        {name: Profile.from_dict(store.folder(recipe).result("profile")) for name, recipe in lines.items()},
        Alignment.from_dict(store.folder(made).result("align"), WeightSpace(model).point(checkpoint)),
        not_repaired,
    )
    result = {"runs": runs, **found.alignment.to_dict(), "not_repaired": not_repaired}
    result["barriers"] = found.to_frame().to_dict("records")
    drawings: dict[str, Axes] = {split: found.plot(split) for split in splits}
    paths = [checkpoint, *write(folder, "alignment", result, found.to_frame(), drawings)]
    table = columns(("line", "read on", "metric", "barrier", "low", "high", "at t"), found.to_frame().values.tolist())
    text = f"{found.alignment}.\n\n{table}\n\n{_CARRIED.format(positions)}"
    text += f"\nNot repaired: {not_repaired}." if not_repaired else ""
    answer({**result, "files": paths}, "\n".join([text, *map(str, paths)]), json)
    return 0


def _followed(model: nn.Module, images: Loader) -> str | None:
    """Why the network cannot be repaired, if so; one that cannot be followed is refused before any step has run."""
    trace(model.eval(), next(iter(images)))
    return None if batch_norms(model) else repairable(model, images)

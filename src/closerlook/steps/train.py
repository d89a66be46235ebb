"""Step `train`: a network from its initial weights, or from the weights or a fork of another run."""

from pathlib import Path

from closerlook import files
from closerlook.batches import autocast_dtype, without_extra
from closerlook.curvature import SharpnessTrace
from closerlook.runs.recipe import TrainRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.points import checkpoint
from closerlook.steps.registry import step
from closerlook.steps.setting import MEMORY_FORMATS, fixed_batches, parts, training_batches
from closerlook.steps.taught import beginning, taught
from closerlook.training import LayerTrace, TrainResult, train
from closerlook.training.observers import Instrument


@step("train")
def run(recipe: TrainRecipe, folder: RunFolder) -> None:
    """Train; the folder holds metrics, checkpoints and the outcome. A diverged run is a result."""
    result = trained(recipe, folder)
    files.write_json(folder.path / "results" / "outcome.json", {"diverged_at": result.diverged_at})


def trained(recipe: TrainRecipe, folder: RunFolder, out: Path | None = None) -> TrainResult:
    """Train as the recipe says, in a folder (default: that of the run) from which the same call goes on.

    Raises
    ------
    PointMissingError
        What it starts from, or its teacher, is of a run that diverged before.
    """
    seeds, (distil, soft_targets) = recipe.seeds, taught(recipe, folder)
    validation = fixed_batches(parts(recipe.data).validation, 500) if recipe.data.n_validation else None
    return train(
        beginning(recipe, folder),
        training_batches(
            recipe.data, recipe.batch_size, recipe.augment, seeds.order, seeds.augment, extra=soft_targets
        ),
        recipe.optimizer.name,
        epochs=recipe.epochs,
        schedule=recipe.schedule,
        seed=seeds.noise,
        validation=validation,
        snapshots=recipe.snapshots,
        forks=recipe.forks,
        start=None if recipe.start is None else checkpoint(folder, recipe.start, "fork"),
        interventions=(*recipe.interventions, *distil),
        observers=observers(recipe),
        out=out or folder.path,
        batch_fn=None if soft_targets is None else without_extra(),
        autocast=autocast_dtype(recipe.precision),
        memory_format=MEMORY_FORMATS[recipe.memory_format],
        **recipe.optimizer.settings(),
    )


def observers(recipe: TrainRecipe) -> list[Instrument]:
    """The instruments that a recipe asks for."""
    watch, found = recipe.watch, list[Instrument]()
    if watch.layers_every:
        found.append(LayerTrace(watch.layers_every, watch.blocks or None))
    if watch.sharpness_every:
        probe = fixed_batches(parts(recipe.data).read, watch.examples, watch.examples)
        found.append(SharpnessTrace(probe, watch.sharpness_every, watch.sharpness_until, watch.blocks or None))
    return found

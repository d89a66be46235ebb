"""Step `train`: a network from its initial weights, or from a fork of another run."""

from pathlib import Path

from closerlook import files
from closerlook.batches import autocast_dtype
from closerlook.curvature import SharpnessTrace
from closerlook.runs.recipe import TrainRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.registry import step
from closerlook.steps.setting import MEMORY_FORMATS, checkpoint, fixed_batches, network, parts, training_batches
from closerlook.training import LayerTrace, TrainResult, train
from closerlook.training.observers import Instrument


@step("train")
def run(recipe: TrainRecipe, folder: RunFolder) -> None:
    """Train; the folder holds metrics, checkpoints and the outcome. A diverged run is a result."""
    start = None if recipe.start is None else checkpoint(folder, recipe.start, "fork")
    result = trained(recipe, folder.path, start)
    files.write_json(folder.path / "results" / "outcome.json", {"diverged_at": result.diverged_at})


def trained(recipe: TrainRecipe, out: Path, start: Path | None = None) -> TrainResult:
    """Train as the recipe says, in a folder from which the same call goes on."""
    seeds = recipe.seeds
    validation = fixed_batches(parts(recipe.data).validation, 500) if recipe.data.n_validation else None
    return train(
        network(recipe.model, recipe.data, seeds.init),
        training_batches(recipe.data, recipe.batch_size, recipe.augment, seeds.order, seeds.augment),
        recipe.optimizer.name,
        epochs=recipe.epochs,
        schedule=recipe.schedule,
        seed=seeds.noise,
        validation=validation,
        snapshots=recipe.snapshots,
        forks=recipe.forks,
        start=start,
        interventions=recipe.interventions,
        observers=observers(recipe),
        out=out,
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

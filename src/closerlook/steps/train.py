"""Step `train`: a network from its initial weights, or from a fork of another run."""

from closerlook import files
from closerlook.batches import autocast_dtype
from closerlook.runs.recipe import TrainRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.registry import step
from closerlook.steps.setting import MEMORY_FORMATS, checkpoint, fixed_batches, network, parts, training_batches
from closerlook.training import LayerTrace, train
from closerlook.training.observers import Instrument


@step("train")
def run(recipe: TrainRecipe, folder: RunFolder) -> None:
    """Train; the folder holds metrics, checkpoints and the outcome. A diverged run is a result."""
    seeds = recipe.seeds
    model = network(recipe.model, recipe.data, seeds.init)
    start = None if recipe.start is None else checkpoint(folder, recipe.start, "fork")
    validation = fixed_batches(parts(recipe.data).validation, 500) if recipe.data.n_validation else None
    result = train(
        model,
        training_batches(recipe.data, recipe.batch_size, recipe.augment, seeds.order, seeds.augment),
        recipe.optimizer.name,
        epochs=recipe.epochs,
        schedule=recipe.schedule,
        seed=seeds.noise,
        validation=validation,
        snapshots=recipe.snapshots,
        forks=recipe.forks,
        interventions=recipe.interventions,
        observers=observers(recipe),
        start=start,
        out=folder.path,
        autocast=autocast_dtype(recipe.precision),
        memory_format=MEMORY_FORMATS[recipe.memory_format],
        **recipe.optimizer.settings(),
    )
    files.write_json(folder.path / "results" / "outcome.json", {"diverged_at": result.diverged_at})


def observers(recipe: TrainRecipe) -> list[Instrument]:
    """The instruments that a recipe asks for."""
    watch, found = recipe.watch, list[Instrument]()
    if watch.layers_every:
        found.append(LayerTrace(watch.layers_every, watch.blocks or None))
    return found

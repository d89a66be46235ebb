"""Step `connect`: the bends of a curve between two points."""

from closerlook import files
from closerlook.batches import autocast_dtype
from closerlook.landscape import connect
from closerlook.runs.recipe import ConnectRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.points import Resolver
from closerlook.steps.registry import step
from closerlook.steps.setting import MEMORY_FORMATS, network, training_batches


@step("connect")
def run(recipe: ConnectRecipe, folder: RunFolder) -> None:
    """Train the curve; its bends and its length are the result. One that diverged leaves no bend."""
    model = network(recipe.model, recipe.data, seed=0)
    find = Resolver(model, folder)
    curve = connect(
        model,
        find.point(recipe.a),
        find.point(recipe.b),
        training_batches(recipe.data, recipe.batch_size, recipe.augment, recipe.seed, recipe.seed),
        recipe.curve,
        recipe.bends,
        epochs=recipe.epochs,
        optimizer=recipe.optimizer.name,
        **recipe.optimizer.settings(),
        schedule=recipe.schedule,
        seed=recipe.seed,
        snapshots=recipe.snapshots,
        out=folder.path,
        autocast=autocast_dtype(recipe.precision),
        memory_format=MEMORY_FORMATS[recipe.memory_format],
    )
    diverged = any("diverged" in row for row in curve.history)
    if not diverged:
        bends = {f"point.{index}": curve.points[index].vector for index in curve.free}
        files.write_tensors(folder.path / "results" / "curve.safetensors", bends)
    length = None if diverged else curve.length()
    files.write_json(folder.path / "results" / "curve.json", {"diverged": diverged, "length": length})

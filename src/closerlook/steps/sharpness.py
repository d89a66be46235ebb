"""Step `sharpness`: the curvature of the loss at a point."""

from closerlook import files
from closerlook.curvature import critical_lr, sharpness
from closerlook.runs.recipe import SharpnessRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.points import network_at, overflow_is_missing
from closerlook.steps.registry import step
from closerlook.steps.setting import fixed_batches, parts


@step("sharpness")
def run(recipe: SharpnessRecipe, folder: RunFolder) -> None:
    """Read both on the examples of one split in their order.

    Optimizers are no part of it: what each can bear is a formula, so that asking about another one reads nothing.
    """
    held = parts(recipe.data)
    pair, most = (held.read, None) if recipe.split == "train" else (held.test, recipe.data.n_test)
    model = network_at(recipe.model, recipe.point, recipe, folder)
    batches = fixed_batches(pair, recipe.batch_size, recipe.examples or most)
    with overflow_is_missing(recipe.point):
        found = sharpness(
            model,
            batches,
            top=recipe.top,
            per_block=recipe.blocks or False,
            batch_norm=recipe.batch_norm,
            tolerance=recipe.tolerance,
            seed=recipe.seed,
        )
        rate = critical_lr(model, batches, batch_norm=recipe.batch_norm)
    files.write_json(folder.path / "results" / "sharpness.json", {**found.to_dict(), "critical_lr": rate.to_dict()})

"""Step `agreement`: two networks in function."""

from closerlook import files
from closerlook.agreement import agreement
from closerlook.runs.recipe import AgreementRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.points import network_at, overflow_is_missing
from closerlook.steps.registry import step
from closerlook.steps.setting import fixed_batches, parts


@step("agreement")
def run(recipe: AgreementRecipe, folder: RunFolder) -> None:
    """Read both on the examples of one split in their order."""
    held = parts(recipe.data)
    pair, most = (held.read, None) if recipe.split == "train" else (held.test, recipe.data.n_test)
    with overflow_is_missing(recipe.a, recipe.b):
        found = agreement(
            network_at(recipe.model, recipe.a, recipe, folder),
            network_at(recipe.model_b or recipe.model, recipe.b, recipe, folder),
            fixed_batches(pair, recipe.batch_size, most),
            temperature=recipe.temperature,
            level=recipe.level,
        )
    files.write_json(folder.path / "results" / "agreement.json", found.to_dict())

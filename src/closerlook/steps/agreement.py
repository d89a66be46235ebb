"""Step `agreement`: two networks in function."""

from closerlook import files
from closerlook.agreement import agreement
from closerlook.runs.recipe import AgreementRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.compare import trained
from closerlook.steps.registry import step
from closerlook.steps.setting import fixed_batches, parts


@step("agreement")
def run(recipe: AgreementRecipe, folder: RunFolder) -> None:
    """Read both on the examples of one split in their order."""
    held = parts(recipe.data)
    pair, most = (held.read, None) if recipe.split == "train" else (held.test, recipe.data.n_test)
    found = agreement(
        trained(recipe.model, recipe.a, recipe, folder),
        trained(recipe.model_b or recipe.model, recipe.b, recipe, folder),
        fixed_batches(pair, recipe.batch_size, most),
        temperature=recipe.temperature,
        level=recipe.level,
    )
    files.write_json(folder.path / "results" / "agreement.json", found.to_dict())

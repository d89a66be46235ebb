"""Step `compare`: similarities of the layers of two networks."""

from closerlook import files
from closerlook.runs.recipe import CompareRecipe
from closerlook.runs.store import RunFolder
from closerlook.similarity import Comparison
from closerlook.similarity.compare import compare
from closerlook.steps.points import network_at, overflow_is_missing
from closerlook.steps.registry import step
from closerlook.steps.setting import fixed_batches, network, parts


@step("compare")
def run(recipe: CompareRecipe, folder: RunFolder) -> None:
    """Compare on the examples of one split in their order; the untrained network is one of B's with new weights."""
    with overflow_is_missing(recipe.a, recipe.b):
        found = _compared(recipe, folder)
    files.write_json(folder.path / "results" / "compare.json", found.to_dict())


def _compared(recipe: CompareRecipe, folder: RunFolder) -> Comparison:
    held = parts(recipe.data)
    pair, most = (held.read, None) if recipe.split == "train" else (held.test, recipe.data.n_test)
    spec_b = recipe.model_b or recipe.model
    return compare(
        network_at(recipe.model, recipe.a, recipe, folder),
        network_at(spec_b, recipe.b, recipe, folder),
        fixed_batches(pair, recipe.batch_size, most),
        recipe.layers_a,
        recipe.layers_b,
        recipe.measures,
        conv=recipe.conv,
        tokens=recipe.tokens,
        nulls=recipe.nulls,
        intervals=recipe.intervals,
        insist=recipe.insist,
        cut=recipe.cut,
        seed=recipe.seed,
        untrained=network(spec_b, recipe.data, recipe.seed) if "random" in recipe.nulls else None,
    )

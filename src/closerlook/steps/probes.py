"""Step `probes`: what a linear map reads from each layer of a network."""

from closerlook import files
from closerlook.probes import Probes, probes
from closerlook.runs.recipe import ProbesRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.points import network_at, overflow_is_missing
from closerlook.steps.registry import step
from closerlook.steps.setting import fixed_batches, parts


@step("probes")
def run(recipe: ProbesRecipe, folder: RunFolder) -> None:
    """Fit on the validation images, score on test images; seconds are no result, and not kept."""
    with overflow_is_missing(recipe.a, recipe.b):
        found = _probed(recipe, folder).to_dict()
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in found["probes"]]
    files.write_json(folder.path / "results" / "probes.json", {**found, "probes": rows})


def _probed(recipe: ProbesRecipe, folder: RunFolder) -> Probes:
    held = parts(recipe.data)
    return probes(
        network_at(recipe.model, recipe.a, recipe, folder),
        fixed_batches(held.validation, recipe.batch_size),
        fixed_batches(held.test, recipe.batch_size, recipe.data.n_test),
        recipe.layers,
        "labels" if recipe.b is None else network_at(recipe.model_b or recipe.model, recipe.b, recipe, folder),
        conv=recipe.conv,
        tokens=recipe.tokens,
        seed=recipe.seed,
    )

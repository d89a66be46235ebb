"""Step `probes`: what a linear map reads from each layer of a network."""

from closerlook import files
from closerlook.errors import NotFiniteError, PointMissingError
from closerlook.probes import Probes, probes
from closerlook.runs.recipe import File, ProbesRecipe
from closerlook.runs.store import RunFolder
from closerlook.steps.compare import trained
from closerlook.steps.registry import step
from closerlook.steps.setting import fixed_batches, parts


@step("probes")
def run(recipe: ProbesRecipe, folder: RunFolder) -> None:
    """Fit on the validation images, score on test images; seconds are no result, and not kept.

    A run of ours whose weights are finite and whose activations are not has diverged there: its point is missing.
    """
    try:
        found = _probed(recipe, folder).to_dict()
    except NotFiniteError as error:
        if isinstance(recipe.a, File) or isinstance(recipe.b, File):
            raise
        raise PointMissingError(f"nothing to probe: {error}") from error
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in found["probes"]]
    files.write_json(folder.path / "results" / "probes.json", {**found, "probes": rows})


def _probed(recipe: ProbesRecipe, folder: RunFolder) -> Probes:
    held = parts(recipe.data)
    return probes(
        trained(recipe.model, recipe.a, recipe, folder),
        fixed_batches(held.validation, recipe.batch_size),
        fixed_batches(held.test, recipe.batch_size, recipe.data.n_test),
        recipe.layers,
        "labels" if recipe.b is None else trained(recipe.model_b or recipe.model, recipe.b, recipe, folder),
        conv=recipe.conv,
        tokens=recipe.tokens,
        seed=recipe.seed,
    )

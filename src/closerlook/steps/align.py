"""Step `align`: a network permuted to lie near another one."""

from closerlook import files
from closerlook.alignment import alignment
from closerlook.data import TensorBatches
from closerlook.runs.recipe import AlignRecipe, DataSpec
from closerlook.runs.store import RunFolder
from closerlook.steps.points import Resolver, overflow_is_missing
from closerlook.steps.registry import step
from closerlook.steps.setting import fixed_batches, network, parts


@step("align")
def run(recipe: AlignRecipe, folder: RunFolder) -> None:
    """Align; the permuted network is a checkpoint, and what was permuted is told beside it."""
    find = Resolver(network(recipe.model, recipe.data, seed=0), folder)
    with overflow_is_missing(recipe.a, recipe.b):
        found = alignment(
            find.model,
            find.point(recipe.a),
            find.point(recipe.b),
            recipe.method,
            loader=batches_to_align_on(recipe.data, recipe.batch_size),
            seed=recipe.seed,
            restarts=recipe.restarts,
        )
    files.write_tensors(folder.path / "results" / "aligned.safetensors", find.space.state_dict(found.point))
    files.write_json(folder.path / "results" / "align.json", found.to_dict())


def batches_to_align_on(data: DataSpec, batch_size: int) -> TensorBatches:
    """The images for batch-norm statistics, which carry no loss, or those that carry it where there are none."""
    held = parts(data)
    return fixed_batches(held.statistics if data.n_statistics else held.read, batch_size)

"""Step `compare`: similarities of the layers of two networks."""

from torch import nn

from closerlook import files
from closerlook.batches import feed_for
from closerlook.errors import NotFiniteError, PointMissingError
from closerlook.evaluation import batch_norms, estimate_batch_stats
from closerlook.runs.recipe import (
    AgreementRecipe,
    CompareRecipe,
    File,
    ModelSpec,
    PointRef,
    ProbesRecipe,
    SharpnessRecipe,
)
from closerlook.runs.store import RunFolder
from closerlook.similarity import Comparison
from closerlook.similarity.compare import compare
from closerlook.steps.registry import step
from closerlook.steps.setting import Resolver, fixed_batches, network, parts
from closerlook.weights import loaded


@step("compare")
def run(recipe: CompareRecipe, folder: RunFolder) -> None:
    """Compare on the examples of one split in their order; the untrained network is one of B's with new weights.

    A run of ours whose weights are finite and whose activations are not has diverged there: its point is missing.
    """
    try:
        found = _compared(recipe, folder)
    except NotFiniteError as error:
        if isinstance(recipe.a, File) or isinstance(recipe.b, File):
            raise
        raise PointMissingError(f"nothing to compare: {error}") from error
    files.write_json(folder.path / "results" / "compare.json", found.to_dict())


def _compared(recipe: CompareRecipe, folder: RunFolder) -> Comparison:
    held = parts(recipe.data)
    pair, most = (held.read, None) if recipe.split == "train" else (held.test, recipe.data.n_test)
    spec_b = recipe.model_b or recipe.model
    return compare(
        trained(recipe.model, recipe.a, recipe, folder),
        trained(spec_b, recipe.b, recipe, folder),
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


def trained(
    spec: ModelSpec,
    ref: PointRef,
    recipe: CompareRecipe | AgreementRecipe | ProbesRecipe | SharpnessRecipe,
    folder: RunFolder,
) -> nn.Module:
    """The network with a point's weights; without batch-norm statistics it gets those of the images kept for them."""
    model = network(spec, recipe.data, seed=0)
    find = Resolver(model, folder)
    point = find.point(ref)
    model = loaded(model, point)
    if batch_norms(model) and not point.buffers:
        statistics = fixed_batches(parts(recipe.data).statistics, recipe.batch_size)
        estimate_batch_stats(model, statistics, feed_for(model)[1])
    return model

"""``closerlook compare``: similarities of the layers of two checkpoints."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from closerlook.activations import choose
from closerlook.cli.answer import answer
from closerlook.cli.compared import drawings, text
from closerlook.cli.comparing import Comparing, Other
from closerlook.cli.layers import listed
from closerlook.cli.options import DryRun, First, Json, Out, Second
from closerlook.cli.outputs import folder_for, write
from closerlook.cli.points import references
from closerlook.cli.subject import Subject
from closerlook.cli.work import dry, finish
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import CompareRecipe, DataSpec, ModelSpec
from closerlook.runs.store import Store
from closerlook.similarity import Comparison, chosen
from closerlook.similarity.untrained import APART
from closerlook.steps.setting import network, source
from closerlook.weights import WeightSpace


def compare(
    a: First,
    b: Second,
    subject: Subject,
    comparing: Comparing,
    other: Other,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Compare what the layers of checkpoint A hold with what those of checkpoint B hold.

    Every layer of A is compared with every layer of B on the same images, in fp32 and eval mode. Every number carries
    its chance level. Writes compare.json, compare.csv, a heat map per measure and a profile over layers of the same
    name. The same command again reuses what is finished. closerlook layers lists the names.

    Parameters
    ----------
    a
        A checkpoint.
    b
        Another one, of the same network unless --model-b names another.

    Examples
    --------
    closerlook compare a.pt b.pt --model mymodule:network --data mymodule:data --layers "*relu*"
    closerlook compare student.pt teacher.pt --model vgg11 --model-b vgg16 --data fashion --measures cka svcca:20,r2
    """
    specs, store, model_b = subject.specs((a, b)), Store(subject.runs), other.spec()
    _check(specs["data"], a, specs["model"], comparing.layers)
    _check(specs["data"], b, model_b or specs["model"], comparing.layers_b or comparing.layers)
    chosen(comparing.measures, comparing.conv == "spectral")
    first, second = references((a, b))
    seed = subject.seed + APART  # of the untrained network
    recipe = CompareRecipe(**specs, **comparing.of(), model_b=model_b, a=first, b=second, seed=seed)
    if dry_run:
        return dry([recipe], store, json)
    finish([recipe], store)
    stored = Comparison.from_dict(store.folder(recipe).result("compare"))
    found = replace(stored, label=f"{a.name} against {b.name}")
    result = {"runs": {"compare": run_id(recipe)}, "split": recipe.split, **found.to_dict()}
    folder = folder_for("compare", result["runs"], subject.runs, out)
    paths = write(folder, "compare", result, found.to_frame(), drawings(found))
    answer({**result, "files": paths}, "\n".join([text(found, recipe.split), *map(str, paths)]), json)
    return 0


def _check(data: DataSpec, checkpoint: Path, model: ModelSpec, patterns: Sequence[str]) -> None:
    """Find out now, and not after the images went through, that weights or names do not fit the network."""
    built = network(model, data, seed=0)
    WeightSpace(built).point(checkpoint)
    choose(listed(built, source(data.name, data.resolution), patterns), patterns)

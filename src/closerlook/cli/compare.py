"""``closerlook compare``: similarities of the layers of two checkpoints."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from matplotlib.axes import Axes
from tyro.conf import arg

from closerlook.activations import choose
from closerlook.cli.answer import answer
from closerlook.cli.compared import drawings, text
from closerlook.cli.layers import listed
from closerlook.cli.options import DryRun, First, Json, Out, Positive, Real, Second
from closerlook.cli.outputs import folder_for, write
from closerlook.cli.pairs import read_pairs
from closerlook.cli.points import references, with_source
from closerlook.cli.subject import Subject
from closerlook.cli.work import dry, finish
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import CompareRecipe, DataSpec, ModelSpec, Split
from closerlook.runs.store import Store
from closerlook.similarity import Comparison, chosen
from closerlook.steps.setting import network, source
from closerlook.weights import WeightSpace

Patterns = Annotated[tuple[str, ...], arg(metavar="PATTERN ...")]
PatternsB = Annotated[tuple[str, ...] | None, arg(metavar="PATTERN ...", help_behavior_hint="(default: as A)")]
Flag = Annotated[bool, arg(help_behavior_hint="")]


def compare(
    a: First,
    b: Second,
    subject: Subject,
    layers: Patterns = ("*",),
    layers_b: PatternsB = None,
    measures: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("cca", "cka", "procrustes"),
    conv: Literal["mean", "positions", "flatten", "spectral"] = "mean",
    tokens: Literal["mean", "positions", "first", "flatten"] = "mean",
    nulls: Annotated[tuple[Literal["random", "shuffled"], ...], arg(metavar="{random,shuffled} ...")] = (),
    intervals: Flag = False,
    insist: Flag = False,
    cut: Real = 1.0,
    split: Split = "train",
    read_size: Positive = 500,
    model_b: Annotated[str | None, arg(metavar="NAME|MODULE:FUNCTION", help_behavior_hint="(default: as A)")] = None,
    model_b_options: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="")] = (),
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
    layers
        Which layers of A: names with the wildcards * and ?, NAME#2 for a second call, NAME:1 for a second output.
    layers_b
        Which layers of B.
    measures
        Any of cca, svcca, pwcca, cka, procrustes; with words after a colon: cca:r2 (mean of squares), svcca:20,r2 (20
        directions on both sides), svcca:0.9 (of the variance), pwcca:mean, cka:biased.
    conv
        What the units of maps are: channels averaged over space (mean), channels with every position as an example
        (positions), every value (flatten), or channels at each spatial frequency (spectral).
    tokens
        The same for token sequences; first takes the first token.
    nulls
        Also compare A with an untrained B, or with B's images in another order.
    intervals
        Standard errors over images.
    insist
        Accept fewer than 5 images per direction.
    cut
        Drop directions below this many times the rounding of fp32.
    split
        Images to compare on: those that carry the training loss (--n-read), or the test part.
    read_size
        Images per batch.
    model_b
        The network of B where it is another one.
    model_b_options
        Its settings.

    Examples
    --------
    closerlook compare a.pt b.pt --model mymodule:network --data mymodule:data --layers "*relu*"
    closerlook compare student.pt teacher.pt --model vgg11 --model-b vgg16 --data fashion --measures cka svcca:20,r2
    """
    specs, store = subject.specs((a, b)), Store(subject.runs)
    other = None if model_b is None else with_source(ModelSpec(name=model_b, options=read_pairs(model_b_options)))
    _check(specs["data"], a, specs["model"], layers)
    _check(specs["data"], b, other or specs["model"], layers if layers_b is None else layers_b)
    chosen(measures, conv == "spectral")
    first, second = references((a, b))
    recipe = CompareRecipe(
        **specs, model_b=other, a=first, b=second, layers_a=layers, layers_b=layers_b, measures=measures, conv=conv,
        tokens=tokens, nulls=nulls, intervals=intervals, insist=insist, cut=cut, split=split, batch_size=read_size,
        seed=subject.seed,
    )  # fmt: skip
    if dry_run:
        return dry([recipe], store, json)
    finish([recipe], store)
    stored = Comparison.from_dict(store.folder(recipe).result("compare"))
    found = replace(stored, label=f"{a.name} against {b.name}")
    result = {"runs": {"compare": run_id(recipe)}, "split": split, **found.to_dict()}
    folder = folder_for("compare", result["runs"], subject.runs, out)
    drawn: dict[str, Axes] = drawings(found)
    paths = write(folder, "compare", result, found.to_frame(), drawn)
    answer({**result, "files": paths}, "\n".join([text(found, split), *map(str, paths)]), json)
    return 0


def _check(data: DataSpec, checkpoint: Path, model: ModelSpec, patterns: Sequence[str]) -> None:
    """Find out now, and not after the images went through, that weights or names do not fit the network."""
    built = network(model, data, seed=0)
    WeightSpace(built).point(checkpoint)
    choose(listed(built, source(data.name, data.resolution), patterns), patterns)

"""``closerlook agreement``: how far two checkpoints agree in function."""

from typing import Annotated

from tyro.conf import arg

from closerlook.agreement import Agreement
from closerlook.agreement.result import OVER
from closerlook.cli.answer import answer, columns
from closerlook.cli.comparing import Other
from closerlook.cli.options import Above, DryRun, First, Json, Level, Out, Positive, Second
from closerlook.cli.outputs import folder_for, write
from closerlook.cli.points import references
from closerlook.cli.subject import Subject
from closerlook.cli.work import dry, finish
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import AgreementRecipe, Split
from closerlook.runs.store import Store
from closerlook.steps.setting import network
from closerlook.weights import WeightSpace

_NAMES = {
    "agreement": "same label", "kl_a_b": "KL(A, B), nats", "kl_b_a": "KL(B, A), nats",
    "js": "Jensen-Shannon, nats", "accuracy_a": "accuracy of A", "accuracy_b": "accuracy of B",
    "error_overlap": "shared errors / errors of either", "kappa": "kappa of being right",
    "ece_a": "calibration error of A", "ece_b": "calibration error of B", "loss_a": "loss of A, nats",
    "loss_b": "loss of B, nats", "gain": "gain of the ensemble over the better",
}  # fmt: skip


def agreement(
    a: First,
    b: Second,
    subject: Subject,
    other: Other,
    split: Split = "test",
    temperature: Annotated[Above, arg(metavar="T")] = 1.0,
    level: Level = 0.95,
    read_size: Positive = 500,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Read how far checkpoints A and B agree in what they predict: a student and its teacher, or any two classifiers.

    Same labels, divergences between the probabilities, shared errors, calibration, and what an ensemble of both gains;
    on all images, where B is right and where B is wrong. Both see the same images, in fp32 and eval mode. Intervals are
    over images, not over seeds. Writes agreement.json, agreement.csv, agreement.svg and agreement.png. The same command
    again reuses what is finished.

    Parameters
    ----------
    a
        A checkpoint, such as a student's.
    b
        Another one, such as its teacher's, of the same network unless --model-b names another.
    split
        Images to read on: those that carry the training loss (--n-read), or the test part.
    temperature
        Divides the logits in the divergences, and nowhere else.
    read_size
        Images per batch.

    Examples
    --------
    closerlook agreement student.pt teacher.pt --model mymodule:student --model-b mymodule:teacher --data mymodule:data
    closerlook agreement a.pt b.pt --model vgg11_bn --data fashion --split train
    """
    specs, store, model_b = subject.specs((a, b)), Store(subject.runs), other.spec()
    for checkpoint, model in ((a, specs["model"]), (b, model_b or specs["model"])):
        WeightSpace(network(model, specs["data"], seed=0)).point(checkpoint)
    first, second = references((a, b))
    recipe = AgreementRecipe(
        **specs, model_b=model_b, a=first, b=second, split=split, temperature=temperature, level=level,
        batch_size=read_size,
    )  # fmt: skip
    if dry_run:
        return dry([recipe], store, json)
    finish([recipe], store)
    found = Agreement.from_dict(store.folder(recipe).result("agreement"))
    result = {"runs": {"agreement": run_id(recipe)}, "split": split, **found.to_dict()}
    folder = folder_for("agreement", result["runs"], subject.runs, out)
    paths = write(folder, "agreement", result, found.to_frame(), {"": found.plot()})
    answer({**result, "files": paths}, "\n".join([text(found, split), *map(str, paths)]), json)
    return 0


def text(found: Agreement, split: str) -> str:
    """Every quantity on all images with its interval, and where B is right or wrong."""
    others = [part for part in found.parts if part != "all"]
    header = ["", "all", "low", "high", *(_capital(part) for part in others)]
    rows = []
    for name, words in _NAMES.items():
        if name in found.parts["all"]:
            whole = found.estimate(name)
            here = [found.parts[part][name].value if name in found.parts[part] else None for part in others]
            rows.append([words, whole.value, whole.low, whole.high, *here])
    sizes = "".join(f", {found.sizes[part]:,} {_capital(part)}" for part in others)
    warm = "" if found.temperature == 1 else f"\nDivergences at temperature {found.temperature:g}."
    said = f"{found.n:,} {split} images{sizes}. Low and high: {found.level:.0%} interval {OVER}."
    return f"{columns(header, rows)}\n\n{said}{warm}"


def _capital(part: str) -> str:
    return part.replace("b ", "B ", 1)

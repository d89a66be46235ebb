"""The figures of a run, by its kind, for a report."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from matplotlib.axes import Axes

from closerlook import figures
from closerlook.agreement import Agreement
from closerlook.cli.compared import drawings
from closerlook.cli.profiles import drawing, splits_of
from closerlook.landscape import Profile, Surface
from closerlook.report import Figure
from closerlook.runs.store import RunFolder
from closerlook.similarity import Comparison

Drawn = Iterator[tuple[str, Axes]]  # caption and drawing


def figures_of(folder: RunFolder) -> list[Figure]:
    """The figures of a finished run; none where it left no numbers."""
    kind = folder.recipe().kind
    if not folder.done or kind not in _KINDS or (folder.path / "results" / "missing.json").exists():
        return []
    found = []
    for number, (caption, ax) in enumerate(_KINDS[kind](folder)):
        name = f"{folder.id}-{number}"
        found.append(Figure(name, folder.id, caption, figures.to_svg(ax, caption, name)))
    return found


def _training(folder: RunFolder) -> Drawn:
    journal = folder.epochs()
    epochs = [row["epoch"] for row in journal]
    if not journal:
        return
    losses, rates = figures.panels(2)
    figures.norms(epochs, {"training": [row["loss"] for row in journal]}, "mean training loss (nats)", losses)
    figures.learning_rate(epochs, {"training": [row["lr"] for row in journal]}, rates)
    yield "Mean loss of each epoch as it was trained, and the learning rate at its end.", losses
    if "validation_accuracy" in journal[0]:
        values = [row["validation_accuracy"] for row in journal]
        yield (
            "Accuracy on held-out training images.",
            figures.accuracy({"validation": epochs}, {"validation": {0: values}}),
        )


def _profile(folder: RunFolder) -> Drawn:
    found = Profile.from_dict(folder.result("profile"))
    name = "segment" if found.kind == "line" else "curve"
    yield f"Loss along the {name}; batch-norm statistics: {found.batch_stats}.", drawing({name: found}, "loss")


def _surface(folder: RunFolder) -> Drawn:
    found = Surface.from_dict(folder.result("surface"))
    for split in splits_of(found):
        yield f"Loss on the plane, {split} images; distances off it are L2 norms of weights.", found.plot(split=split)


def _barriers(folder: RunFolder) -> Drawn:
    found = folder.result("barriers")
    caption = f"Loss barriers ({found['definition']}), {found['points']} points on t, {found['batch_stats']}."
    yield caption, figures.matrix(found["values"], found["labels"], "loss barrier")


def _compare(folder: RunFolder) -> Drawn:
    found = Comparison.from_dict(folder.result("compare"))
    for name, ax in drawings(found).items():
        yield f"Similarity of layers ({name}) on {found.n:,} images; {found.handling_used}.", ax


def _agreement(folder: RunFolder) -> Drawn:
    found = Agreement.from_dict(folder.result("agreement"))
    yield f"Agreement in function on {found.n:,} images.", found.plot()


def _sharpness(folder: RunFolder) -> Drawn:
    found = folder.result("sharpness")
    lines: dict[str, dict[int | str, Any]] = {"share of the top vector": {0: list(found["shares"].values())}}
    caption = f"Where the sharpest direction lies (eigenvalue {found['values'][0]:.4g}), {found['n']:,} images."
    yield caption, figures.layer_profile(list(found["shares"]), lines, "share of the squared norm")


_KINDS: Mapping[str, Callable[[RunFolder], Drawn]] = {
    "train": _training, "connect": _training, "profile": _profile, "surface": _surface, "barriers": _barriers,
    "compare": _compare, "agreement": _agreement, "sharpness": _sharpness,
    "directions": _surface, "trajectory": _surface,
}  # fmt: skip

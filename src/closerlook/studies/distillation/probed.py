"""What linear probes read from the layers of the students: figure and table."""

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np

from closerlook import figures
from closerlook.report import Figure, Table
from closerlook.studies.compared import Array, each, mean, one_legend
from closerlook.studies.distillation import numbers
from closerlook.studies.distillation.recipe import COMPARED
from closerlook.studies.distillation.words import name_of
from closerlook.studies.plan import Results

Target = Literal["labels", "teacher"]
_SCORES = {"labels": "accuracy of label probes", "teacher": "R^2 of probes to the teacher's logits"}
_ABOUT = (
    "Linear maps fitted on {n_train:,} validation images, scored on {n_test:,} test images: "
    "logistic regression to the labels, ridge regression to the logits of the seed's own teacher. "
)


def _scores(results: Results, arm: str, target: Target) -> Array:
    """Scores [seeds, layers]; NaN where one is missing."""
    found = [numbers.probed(results, arm, seed, target) for seed in results.plan.seeds]
    lost = [np.nan] * len(_layers(results))
    return np.array([lost if one is None else [row["value"] for row in one["probes"]] for one in found], dtype=float)


def _any(results: Results) -> numbers.Row | None:
    found = (
        numbers.probed(results, arm, seed, target)
        for arm in COMPARED for seed in results.plan.seeds for target in get_args(Target)
    )  # fmt: skip
    return next((one for one in found if one is not None), None)


def _layers(results: Results) -> list[str]:
    one = _any(results)
    return [] if one is None else [row["layer"].removeprefix("features.") for row in one["probes"]]


def drawings(results: Results) -> Iterator[Figure]:
    """The scores from layer to layer, where there are any."""
    one = _any(results)
    if one is None:
        return
    axes = figures.panels(len(_SCORES), height=3.0)
    for ax, target in zip(axes, get_args(Target), strict=True):
        lines: dict[str, dict[int | str, Array]] = {
            name_of(arm): dict(zip(results.plan.seeds, _scores(results, arm, target), strict=True)) for arm in COMPARED
        }
        figures.layer_profile(_layers(results), lines, _SCORES[target], ax)
    yield Figure(
        "probes", "What a linear probe reads from each layer",
        f"{_ABOUT.format(**one)}Every seed a thin line. A probe says what a layer makes easy to read, not what the "
        "network uses.",
        figures.to_svg(one_legend(axes), "Scores of linear probes by layer", "probes"),
    )  # fmt: skip


def tables(results: Results) -> Iterator[Table]:
    """Mean scores by layer and arm, and of every seed what D has more than H and SP."""
    one = _any(results)
    for target in get_args(Target) if one is not None else ():
        scores = {arm: _scores(results, arm, target) for arm in COMPARED}
        rows = tuple(
            (
                layer, *(float(mean(of)[place]) for of in scores.values()),
                *(each((scores["D"] - scores[other])[:, place]) for other in ("H", "SP")),
            )
            for place, layer in enumerate(_layers(results))
        )  # fmt: skip
        yield Table(
            f"probes-{target}", f"Linear probes: {_SCORES[target]}",
            ("layer", *scores, *(f"D \N{MINUS SIGN} {other}, each seed" for other in ("H", "SP"))), rows,
            f"{_ABOUT.format(**(one or {}))}Mean over seeds.",
        )  # fmt: skip

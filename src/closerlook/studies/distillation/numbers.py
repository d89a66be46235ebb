"""From stored results to the table that the rule judges, and to the numbers that are only shown."""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from closerlook.agreement import Agreement, compare_logits
from closerlook.runs.recipe import CompareRecipe, TrainRecipe
from closerlook.similarity import Comparison
from closerlook.studies import predictions
from closerlook.studies.compared import key
from closerlook.studies.distillation.recipe import COMPARED, CONTROLS
from closerlook.studies.plan import Results
from closerlook.studies.stored import Array, Row, arms_of, mean, row

JUDGED = ("T", "H", "D", "SP", "TL", "TE", "LS", "U")  # whose accuracy and divergence the rules judge or show


def table(results: Results) -> list[Row]:
    """Rows arm, seed, quantity, value: what the rule judges and shows. A missing value is NaN."""
    makers = (_accuracies, _divergences, _contrasts)
    return [each for seed in results.plan.seeds for make in makers for each in make(results, seed)]


def _accuracies(results: Results, seed: int) -> Iterator[Row]:
    for arm in arms_of(results):
        if arm.startswith("D:") or arm in JUDGED:
            yield row(arm, seed, "accuracy", accuracy(results, arm, seed))


def _divergences(results: Results, seed: int) -> Iterator[Row]:
    apart = divergences(results, seed)
    yield from (row(arm, seed, "divergence", value) for arm, value in apart.items() if arm in JUDGED)
    for arm in apart:
        if arm.startswith(("TL", "TE")):
            yield row(arm, seed, "recovered_divergence", recovered(apart, arm))


def _contrasts(results: Results, seed: int) -> Iterator[Row]:
    for measure, name in measures(results).items():
        gains = {arm: gain(results, arm, seed, measure) for arm in compared_arms(results) if arm != "H"}
        yield from (row(arm, seed, f"depth_contrast:{name}", value) for arm, value in contrasts(gains).items())
        own = {arm: specific(results, arm, seed, measure) for arm in ("D", "H")}
        yield from (row(arm, seed, f"specific_contrast:{name}", value) for arm, value in contrasts(own).items())


def accuracy(results: Results, arm: str, seed: int) -> float:
    """Test accuracy at the end; NaN for a run that diverged."""
    held = predictions.logits(results, f"{arm}/{seed}/predict")
    return math.nan if held is None else predictions.accuracy(held, "end")


def agreement(results: Results, arm: str, seed: int, teacher: int | None = None) -> Agreement | None:
    """Agreement on the test set of a seed's teacher (a), or another seed's, with an arm (b); None if one is missing."""
    held = predictions.logits(results, f"T/{seed if teacher is None else teacher}/predict")
    other = predictions.logits(results, f"{arm}/{seed}/predict")
    if held is None or other is None:
        return None
    a, b, targets = held["end"], other["end"], held["targets"].long()
    return compare_logits(a, b, a.argmax(1) == targets, b.argmax(1) == targets, targets)


def divergences(results: Results, seed: int) -> dict[str, float]:
    """Divergence from the seed's teacher to every other arm, in nats; NaN where one is missing."""
    found = {arm: agreement(results, arm, seed) for arm in arms_of(results) if arm != "T"}
    return {arm: math.nan if one is None else one.kl_a_b for arm, one in found.items()}


def splits(results: Results) -> dict[int, dict[str, str]]:
    """The arms of the transplants TL and TE by how many layers are before the cut, shallow to deep."""
    (half,) = results.plan.about["half"]
    found: dict[int, dict[str, str]] = {}
    for arm in arms_of(results):
        kind, _, split = arm.partition(":")
        if kind in ("TL", "TE"):
            found.setdefault(int(split or half), {})[kind] = arm
    return dict(sorted(found.items()))


def recovered(apart: Mapping[str, float], arm: str) -> float:
    """Share of the divergence to the teacher between H and D that an arm recovers."""
    whole = apart["H"] - apart["D"]
    return (apart["H"] - apart[arm]) / whole if whole > 0 else math.nan


def compared_arms(results: Results) -> list[str]:
    """The arms whose layers are compared with the own teacher's."""
    seed = results.plan.seeds[0]
    return [arm for arm in (*COMPARED, *CONTROLS) if f"{arm}/{seed}/layers-{seed}" in results.plan.roles]


def measures(results: Results) -> dict[str, str]:
    """Names of the measures as they are stored, and as the rule calls them."""
    recipe = next(recipe for recipe in results.plan.roles.values() if isinstance(recipe, CompareRecipe))
    return {measure: key(measure) for measure in recipe.measures}


def stored(results: Results, arm: str, seed: int, teacher: int) -> Comparison | None:
    """The comparison of an arm's layers with those of a seed's teacher."""
    role = f"{arm}/{seed}/layers-{teacher}"
    return Comparison.from_dict(results.folder(role).result("compare")) if results.has(role) else None


def diagonal(results: Results, arm: str, seed: int, teacher: int, measure: str) -> Array:
    """Similarity above chance of each layer of an arm with the teacher's at the same depth; NaN where it is missing."""
    found = stored(results, arm, seed, teacher)
    length = len(layers(results))
    return np.full(length, np.nan) if found is None else np.diagonal(found.tables["corrected"][measure]).astype(float)


def layers(results: Results) -> list[str]:
    """Names of the student's compared layers."""
    found = (stored(results, arm, seed, seed) for arm in COMPARED for seed in results.plan.seeds)
    one = next((one for one in found if one is not None), None)
    return [] if one is None else [layer.removeprefix("features.") for layer in one.layers_a]


def gain(results: Results, arm: str, seed: int, measure: str) -> Array:
    """Per layer the share of the room to the teacher that an arm closes: (sim(X, T) - sim(H, T)) / (1 - sim(H, T))."""
    taught, hard = (diagonal(results, name, seed, seed, measure) for name in (arm, "H"))
    with np.errstate(divide="ignore", invalid="ignore"):  # a student that is its teacher has no room left
        return (taught - hard) / (1 - hard)


def specific(results: Results, arm: str, seed: int, measure: str) -> Array:
    """Per layer the similarity to the own teacher less the mean similarity to the other seeds' teachers.

    A teacher that diverged is not among the others.
    """
    others = [other for other in results.plan.seeds if other != seed and stored(results, arm, seed, other) is not None]
    own = diagonal(results, arm, seed, seed, measure)
    similar = [diagonal(results, arm, seed, other, measure) for other in others]
    return own - np.mean(similar, axis=0) if similar else np.full_like(own, np.nan)


def probed(results: Results, arm: str, seed: int, target: Literal["labels", "teacher"]) -> Row | None:
    """The stored linear probes of an arm's layers; None where one is missing or was not asked for."""
    role = f"{arm}/{seed}/probes-{target}"
    return dict(results.folder(role).result("probes")) if results.has(role) else None


def contrast(values: Array) -> float:
    """Mean over the deeper half of the layers minus that over the other; layers without a value are left out."""
    half = len(values) // 2
    return mean(values[half:]) - mean(values[:half])


def contrasts(values: Mapping[str, Array]) -> dict[str, float]:
    """The contrast of several arms, over the layers that have a value in all of them; an arm without any has none."""
    there = [np.isfinite(of) for of in values.values() if np.isfinite(of).any()]
    known = np.all(there, axis=0) if there else False
    return {arm: contrast(np.where(known, of, np.nan)) for arm, of in values.items()}


def softness(results: Results, seed: int) -> float:
    """Mean entropy, in nats, of a teacher's soft targets on the test images, at the temperature of D."""
    held = predictions.logits(results, f"T/{seed}/predict")
    student = results.plan.roles[f"D/{seed}/train"]
    if held is None or not isinstance(student, TrainRecipe) or student.teacher is None:
        return math.nan
    told = (held["end"].double() / student.teacher.temperature).log_softmax(1)
    return float(-(told.exp() * told).sum(1).mean())


def last_epoch(results: Results, arm: str, seed: int) -> Row | None:
    """The last epoch of a training; None where it did not start, or diverged in its first."""
    role = f"{arm}/{seed}/train"
    rows = results.folder(role).epochs() if results.has(role) else []
    return rows[-1] if rows else None

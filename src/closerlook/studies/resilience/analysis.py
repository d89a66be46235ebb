"""What the resilience study asks, and its tables."""

import math

from closerlook.report import Table
from closerlook.studies.plan import Results
from closerlook.studies.resilience import numbers
from closerlook.studies.resilience.words import ALIGNED, name_of
from closerlook.studies.stored import diverged_at

QUESTION = "Are networks that were trained in different ways joined by a curve as easily as two runs of one recipe?"
NOTES = (
    "Exploratory, outside the rule: everything but the parts and controls above.",
    "What would refute the claim: a way of training to which, with the same budget, the curve is worse by more than 2 "
    "points than the one to G trained once more.",
    "The bend is a network that is trained anew: the epochs of a curve are to be held against those of a mode.",
    "Curves are trained on all training images, with crops and flips; errors are read on a part of them, as they are, "
    "and batch-norm statistics come from images that carry no error here. Dropout, where the network has it (paper), "
    "is on while curves are trained and off where errors are read.",
    "Sources: Gotmare et al. 2019 (arXiv 1810.13243), section 2; Garipov et al. 2018 (arXiv 1802.10026); Draxler et "
    "al. 2018 (arXiv 1803.00885); Ainsworth et al. 2022 (arXiv 2209.04836); Jordan et al. 2022 (arXiv 2211.08403).",
)


def tables(results: Results) -> tuple[Table, ...]:
    """Every table of the report."""
    return tuple(make(results) for make in (_ends, _barriers, _closing, _aligned, _divergences))


def _ends(results: Results) -> Table:
    seeds = results.plan.seeds
    rows = []
    for mode in ("G", *_every(results)):
        errors = [[100 * _error(results, mode, seed, split) for seed in seeds] for split in ("train", "test")]
        rows.append((name_of(mode), *(_shown(value) for of in errors for value in of)))
    return Table(
        "ends", "Errors of the modes (%)",
        ("mode", *(f"{split}, seed {seed}" for split in ("train", "test") for seed in seeds)), tuple(rows),
        "Batch-norm statistics estimated as on the paths. Blank: not trained for this seed, or diverged.",
    )  # fmt: skip


def _every(results: Results) -> list[str]:
    return list(dict.fromkeys(mode for seed in results.plan.seeds for mode in numbers.modes(results, seed)))


def _error(results: Results, mode: str, seed: int, split: str) -> float:
    if mode == "G":
        return numbers.reference_error(results, seed, split)
    return numbers.end_error(results, f"{mode}/{seed}/segment", -1, split)


def _barriers(results: Results) -> Table:
    rows = []
    for mode in [*_every(results), "G' narrow", "bezier", "aligned"]:
        for seed in results.plan.seeds:
            heights = [
                (100 if metric == "error" else 1) * numbers.barrier(results, f"{mode}/{seed}/{path}", split, metric)
                for path in ("segment", "along") for split in ("train", "test") for metric in ("error", "loss")
            ]  # fmt: skip
            both = numbers.lengths(results, mode, seed)
            if not all(map(math.isnan, heights)):
                ratio = both[0] / both[1] if both else math.nan
                rows.append((_pair(mode), str(seed), *map(_shown, heights), _shown(ratio)))
    columns = [f"{path}, {split} {metric}" for path in ("segment", "curve") for split in ("train", "test")
               for metric in ("error (points)", "loss (nats)")]  # fmt: skip
    return Table(
        "barriers", "Barriers from G to every mode", ("mode", "seed", *columns, "length, curve / segment"), tuple(rows),
        "Largest value on the path less the larger of its ends. Lengths are Euclidean, in weight space.",
    )  # fmt: skip


def _pair(mode: str) -> str:
    return {"bezier": "G', Bezier curve", "aligned": "G', aligned"}.get(mode) or name_of(mode)


def _closing(results: Results) -> Table:
    seeds = results.plan.seeds
    rows = []
    for mode in _every(results):
        found = [
            numbers.closes_at(results, mode, seed) if numbers.budgets(results, mode, seed) else "-" for seed in seeds
        ]
        rows.append((name_of(mode), *("not closed" if at is None else at for at in found)))
    read = ", ".join(map(str, results.plan.about["budgets"]))
    return Table(
        "closing", "Epochs of curve training until the curve is closed",
        ("mode", *(f"seed {seed}" for seed in seeds)), tuple(rows),
        "The first reading at which no point of the path is 2 points of training error worse than its worse end; 0 is "
        f"the straight segment, the curve is read after {read} epochs. A mode takes {results.plan.about['epochs'][0]}.",
    )  # fmt: skip


def _aligned(results: Results) -> Table:
    rows = []
    for name, role in ALIGNED.items():
        for metric, unit in (("error", 100), ("loss", 1)):
            roles = [role.format(seed) for seed in results.plan.seeds]
            values = [unit * numbers.barrier(results, one, "train", metric) for one in roles]
            label = "error (points)" if metric == "error" else "loss (nats)"
            if not all(map(math.isnan, values)):
                rows.append((name, label, *map(_shown, values)))
    return Table(
        "aligned", "Barrier from G to G' in every way of reading it",
        ("path", "training", *(f"seed {seed}" for seed in results.plan.seeds)), tuple(rows),
        "Raw: the two ends' batch-norm statistics interpolated. Aligned: units of G' permuted by matching weights. "
        "Without batch norm there are no statistics, rows come in equal pairs, and repaired means REPAIR.",
    )  # fmt: skip


def _divergences(results: Results) -> Table:
    runs = [role for role, recipe in results.plan.roles.items() if recipe.kind == "train"]
    ended = {role: diverged_at(results, role) for role in runs if results.has(role)}
    rows = tuple((role, step) for role, step in ended.items() if step is not None)
    return Table("divergence", "Runs that diverged", ("run", "at step"), rows or (("none", "-"),))


def _shown(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)

"""The figures of the warmup study, from stored numbers."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from closerlook import figures
from closerlook.durations import to_steps
from closerlook.evidence import spread
from closerlook.report import Figure
from closerlook.studies import predictions
from closerlook.studies.plan import Results
from closerlook.studies.stored import diverged_at, rates, training
from closerlook.studies.warmup import changes, numbers, sharpest
from closerlook.studies.warmup.arms import name_of
from closerlook.studies.warmup.settings import SCALES

SHOWN = ("N", "W", "WD", "WS", "P", "FD")


def drawings(results: Results) -> tuple[Figure, ...]:
    """Every figure whose numbers exist, in the order of the report."""
    makers: tuple[Callable[[Results], Iterator[Figure]], ...] = (
        _training, _causes, _phases, sharpest.drawings, changes.drawings,
    )  # fmt: skip
    return tuple(figure for make in makers for figure in make(results))


def _training(results: Results) -> Iterator[Figure]:
    seeds = results.plan.seeds
    recipes = {arm: training(results, f"{arm}/{seeds[0]}/train") for arm in ("N", "W")}
    clock = recipes["N"].clock
    steps = np.arange(clock.total_steps, dtype=float)
    by_arm = {name_of(arm): rates(recipe, steps) for arm, recipe in recipes.items()}
    times, scores, ends = {}, dict[str, dict[int | str, Any]](), dict[str, dict[int | str, float]]()
    for arm in SHOWN:
        rows = {seed: results.folder(f"{arm}/{seed}/train").epochs() for seed in seeds}
        if not all("validation_accuracy" in row for of_seed in rows.values() for row in of_seed):
            continue
        lost = {seed: diverged_at(results, f"{arm}/{seed}/train") for seed in seeds}
        times[name_of(arm)] = np.arange(1, clock.total_steps // clock.steps_per_epoch + 1)
        scores[name_of(arm)] = {seed: [row["validation_accuracy"] for row in rows[seed]] for seed in seeds}
        ends[name_of(arm)] = {seed: step / clock.steps_per_epoch for seed, step in lost.items() if step is not None}
    top, *below = figures.panels(2 if scores else 1)
    figures.learning_rate(steps / clock.steps_per_epoch, by_arm, top)
    for ax in below:
        figures.accuracy(times, scores, ax, diverged=ends, chance=predictions.chance(results))
    held = "on held-out training images, every seed a thin line" if scores else "is not read: no images are held out"
    yield Figure(
        "training", "Learning rate and validation accuracy",
        f"Learning rate without and with warmup. Accuracy {held}. WD, "
        "WS and P have W's rate where they warm up and N's elsewhere; FD has N's and leaves the deep block as it is "
        "until the ramp ends. A cross: the run diverged, and counts as guessing.",
        figures.to_svg(top, "Learning rate and validation accuracy against epoch", "training"),
    )  # fmt: skip


def _causes(results: Results) -> Iterator[Figure]:
    shares, seeds = numbers.benefits(results), results.plan.seeds
    blocks = list(SCALES[results.plan.scale].network.blocks)
    warmed = {**{block: f"WB:{block}" for block in blocks[:-1]}, blocks[-1]: "WD"}
    frozen = {**{block: f"FB:{block}" for block in blocks[:-1]}, blocks[-1]: "FD"}
    controls = {"all but the deep block": "WS", "random set": "P"}
    rows = [*blocks, *controls]
    ways = {"warmed up alone": {**warmed, **controls}, "frozen alone": frozen}
    each = {
        way: np.array([[shares.get(arms.get(row, ""), {}).get(seed, np.nan) for seed in seeds] for row in rows])
        for way, arms in ways.items()
    }
    means = {way: np.array([spread(line) for line in table]) for way, table in each.items()}
    ax = figures.causal_map(rows, each, means, controls=len(controls))
    yield Figure(
        "causes", "Which block's warmup brings how much of the benefit",
        "Share of the gain in test accuracy from no warmup to full warmup, a hollow mark for every seed that gains "
        "more than 5 points, mean and 90 % interval. Warmed up alone: the others have the full rate from the first "
        "step. Frozen alone: the block stays as it is until the ramp ends. Only the deep block, all but it, and the "
        "random set are judged; the other blocks are read on the first seeds alone and are exploratory.",
        figures.to_svg(ax, "Share of warmup's benefit by block", "causes"),
    )  # fmt: skip


def _phases(results: Results) -> Iterator[Figure]:
    phase, plan = SCALES[results.plan.scale].phase, results.plan
    seeds = [seed for seed in plan.seeds if f"phase/{phase.factors[0]:g}/{phase.lengths[0]}/{seed}" in plan.roles] if (
        phase.factors) else []  # fmt: skip
    if not seeds:
        return
    recipe = training(results, f"N/{plan.seeds[0]}/train")
    shape = (len(phase.lengths), len(phase.factors), len(seeds))
    values, lost = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    for place in np.ndindex(shape):
        length, factor, seed = phase.lengths[place[0]], phase.factors[place[1]], seeds[place[2]]
        role = f"phase/{factor:g}/{length}/{seed}"
        lost[place] = diverged_at(results, role) is not None
        values[place] = (
            predictions.chance(results) if lost[place] else results.folder(role).epochs()[-1]["validation_accuracy"]
        )
    ax = figures.phase_diagram(
        [round(factor * recipe.optimizer.lr, 6) for factor in phase.factors],
        [to_steps(length, recipe.clock) for length in phase.lengths], values, lost,
    )  # fmt: skip
    yield Figure(
        "phases", "Exploratory: accuracy over learning rate and length of warmup",
        f"Validation accuracy at the end, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}; runs "
        "that diverged are counted in their cell, and count as guessing.",
        figures.to_svg(ax, "Accuracy over learning rate and length of warmup", "phases"),
    )  # fmt: skip

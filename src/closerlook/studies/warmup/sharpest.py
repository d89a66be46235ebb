"""Exploratory: sharpness against what the learning rate can bear, whose it is, and how far each block moves."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from closerlook import figures
from closerlook.curvature import stability_threshold
from closerlook.report import Figure, Table
from closerlook.studies.plan import Results
from closerlook.studies.stored import Array, Row, diverged_at, padded, rates, training
from closerlook.studies.warmup import numbers
from closerlook.studies.warmup.arms import name_of
from closerlook.studies.warmup.comparisons import COMPARED
from closerlook.studies.warmup.settings import SCALES

LARGEST = 10.0  # a relative update above it belongs to a run that is diverging; it would flatten all others


def drawings(results: Results) -> Iterator[Figure]:
    """Sharpness of N and W with the shares of the top eigenvector, and the updates of their blocks."""
    rows = {arm: numbers.traced(results, arm, "sharpness") for arm in COMPARED}
    if any(rows.values()):
        yield _sharpness(results, rows)
    moved = {arm: numbers.traced(results, arm, "layers") for arm in COMPARED}
    if any(moved.values()):
        yield _updates(moved)


def thresholds(results: Results, arm: str, steps: Array) -> Array:
    """The largest stable eigenvalue at the rate of the step after each of the given ones."""
    recipe = training(results, f"{arm}/{results.plan.seeds[0]}/train")
    last = recipe.clock.total_steps - 1  # after it there is no step; its rate stands there too
    return np.array([
        stability_threshold("sgd", rate, momentum=recipe.optimizer.momentum,
                            weight_decay=recipe.optimizer.weight_decay)
        for rate in rates(recipe, np.minimum(steps, last))
    ])  # fmt: skip


def _sharpness(results: Results, rows: Mapping[str, Mapping[int, list[Row]]]) -> Figure:
    seen = {arm: by_seed for arm, by_seed in rows.items() if by_seed}
    steps = {arm: _steps(by_seed) for arm, by_seed in seen.items()}
    values: dict[str, dict[int | str, list[float]]] = {
        name_of(arm): {seed: [_number(row["sharpness"]) for row in of_seed] for seed, of_seed in by_seed.items()}
        for arm, by_seed in seen.items()
    }
    ends = {name_of(arm): _ends(results, arm, by_seed) for arm, by_seed in seen.items()}
    shares = {arm: _shares(by_seed, len(steps[arm])) for arm, by_seed in seen.items()}
    shares = {arm: of_arm for arm, of_arm in shares.items() if of_arm}  # none where no reading was finite
    top, *below = figures.panels(1 + len(shares), height=2.8)
    figures.sharpness_trace(
        {name_of(arm): steps[arm] for arm in seen}, values,
        {name_of(arm): thresholds(results, arm, steps[arm]) for arm in seen}, top, diverged=ends,
    )  # fmt: skip
    for ax, (arm, of_arm) in zip(below, shares.items(), strict=True):
        figures.block_shares(steps[arm], of_arm, ax, ylabel=f"{arm}: top eigenvector")
    return Figure(
        "sharpness", "Exploratory: sharpness, and where it lies",
        "Above: largest Hessian eigenvalue of the training loss on fixed images (each batch norm by the batch's own "
        "statistics), every watched seed a thin line; dashed: the largest that the learning rate of the next step can "
        "bear on a quadratic, (2 + 2 m) / rate less the weight decay, with momentum m. Below: share of each block in "
        "the eigenvector, mean over the watched seeds.",
        figures.to_svg(top, "Sharpness and stability threshold against step", "sharpness"),
    )  # fmt: skip


def _steps(by_seed: Mapping[int, list[Row]]) -> Array:
    longest = max(by_seed.values(), key=len)
    return np.array([row["step"] for row in longest], dtype=float)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _ends(results: Results, arm: str, seeds: Mapping[int, Any]) -> dict[int | str, float]:
    found = {seed: diverged_at(results, f"{arm}/{seed}/train") for seed in seeds}
    return {seed: float(step) for seed, step in found.items() if step is not None}


def _shares(by_seed: Mapping[int, list[Row]], length: int) -> dict[str, Array]:
    read = (row["shares"] for rows in by_seed.values() for row in rows if row["shares"])
    blocks: list[str] = list(next(read, {}))
    table = np.full((len(by_seed), len(blocks), length), np.nan)
    for place, rows in enumerate(by_seed.values()):
        for step, row in enumerate(rows):
            table[place, :, step] = [row["shares"].get(block, np.nan) for block in blocks]
    known = np.isfinite(table).sum(0)
    means = np.where(known, np.nansum(table, 0) / np.maximum(known, 1), np.nan)
    return dict(zip(blocks, means, strict=True))


def _updates(moved: Mapping[str, Mapping[int, list[Row]]]) -> Figure:
    seen = {arm: by_seed for arm, by_seed in moved.items() if by_seed}
    axes = figures.panels(1, columns=len(seen), share_y=True)
    for place, (ax, (arm, by_seed)) in enumerate(zip(axes, seen.items(), strict=False)):
        steps = _steps(by_seed)
        blocks = list(next(iter(by_seed.values()))[0]["layers"])
        lines = {block: _moved(by_seed, block, len(steps)) for block in blocks}
        figures.updates(steps, lines, ax, title=name_of(arm), legend=place == 0)
    return Figure(
        "updates", "Exploratory: how far each block moves in a step",
        "Norm of the change of a block's weights in one step over the norm of the weights, every watched seed a line. "
        f"Updates above {LARGEST:g} times the weights are those of a run that is diverging, and are left out.",
        figures.to_svg(axes[0], "Relative update of each block against step", "updates"),
    )  # fmt: skip


def _moved(by_seed: Mapping[int, list[Row]], block: str, length: int) -> Array:
    lines = [[_number(row["layers"][block]["update"]) for row in rows] for rows in by_seed.values()]
    table = padded(lines, length)
    return np.where(table <= LARGEST, table, np.nan)


def tables(results: Results) -> Iterator[Table]:
    """Whether the block with most of the top eigenvector when sharpness first passes the threshold is what helps."""
    shares, blocks = numbers.benefits(results), list(SCALES[results.plan.scale].network.blocks)
    alone = {**{block: shares.get(f"WB:{block}", {}) for block in blocks[:-1]}, blocks[-1]: shares["WD"]}
    rows = []
    for seed, of_seed in numbers.traced(results, "N", "sharpness").items():
        here = {block: by_seed[seed] for block, by_seed in alone.items() if seed in by_seed}
        if len(here) < len(blocks):
            continue  # the others were not warmed up alone on this seed
        first = first_unstable(results, of_seed) or ("never", None, None)
        best = None if np.isnan(here[blocks[-1]]) else max(here, key=lambda block: here[block])
        rows.append((f"seed {seed}", *first, best, None if best is None else here[best]))
    if rows:
        yield Table(
            "sharpest", "Exploratory: is the sharpest block the one to warm up?",
            ("seed", "N first too sharp at step", "sharpest block there", "its share", "block that rescues most",
             "its share of the benefit"), tuple(rows),
            "Read at the watched steps only. No block rescues where warmup has no benefit to share. "
            "By guessing, one seed in as many as there are blocks would agree.",
        )  # fmt: skip


def first_unstable(results: Results, rows: list[Row]) -> tuple[int, str, float] | None:
    """Step at which sharpness first passes the threshold of the step after it, with the block of the largest share."""
    limits = thresholds(results, "N", np.array([row["step"] for row in rows]))
    for row, limit in zip(rows, limits, strict=True):
        if row["sharpness"] is not None and row["sharpness"] > limit:
            block = max(row["shares"], key=lambda name: row["shares"][name])
            return row["step"], block, row["shares"][block]
    return None

"""The figures of a diagnosis."""

from collections.abc import Iterator

import numpy as np

from closerlook import figures
from closerlook.diagnosis.findings import Findings
from closerlook.diagnosis.outcomes import Outcomes
from closerlook.diagnosis.settings import SLOW
from closerlook.evidence import spread
from closerlook.report import Figure


def drawings(found: Outcomes, seen: Findings) -> tuple[Figure, ...]:
    """Every figure whose numbers exist."""
    return tuple(figure for make in (_causes, _lengths, _sharpness) for figure in make(found, seen))


def _causes(found: Outcomes, seen: Findings) -> Iterator[Figure]:
    if not seen.unstable:
        return
    ways = {"warmed up alone": "WB", "frozen alone": "FB"}
    blocks = list(found.settings.blocks)
    shares = {
        way: [[seen.shares[f"{kind}:{block}"][seed] for seed in seen.unstable] for block in blocks]
        for way, kind in ways.items()
    }
    means = {way: [spread(row) for row in rows] for way, rows in shares.items()}
    ax = figures.causal_map(blocks, shares, means)
    yield Figure(
        "causes", "Whose warmup removes the instability",
        "Share of full warmup's gain in validation accuracy that each block brings when it alone is warmed up, or "
        "frozen for as long; hollow marks are the unstable seeds.",
        figures.to_svg(ax, "Share of warmup's benefit by block", "causes"),
    )  # fmt: skip


def _lengths(found: Outcomes, seen: Findings) -> Iterator[Figure]:
    s = found.settings
    table = np.full((1 + len(s.lengths), 2, len(s.seeds)), np.nan)
    lost = np.zeros(table.shape, dtype=bool)
    cells = {(0, 0): "Q", (0, 1): "N"} | {(place, 1): f"W:{length}" for place, length in enumerate(s.lengths, 1)}
    for (row, column), arm in cells.items():
        for number, seed in enumerate(s.seeds):
            outcome = found.by_arm[arm][seed]
            table[row, column, number], lost[row, column, number] = outcome.accuracy, outcome.diverged_at is not None
    ax = figures.phase_diagram([SLOW * s.optimizer.lr, s.optimizer.lr], [0, *s.lengths], table, lost)
    yield Figure(
        "lengths", "Where it trains",
        "Validation accuracy over learning rate and length of warmup, mean over seeds, with the runs that diverged.",
        figures.to_svg(ax, "Validation accuracy over learning rate and warmup length", "lengths"),
    )  # fmt: skip


def _sharpness(found: Outcomes, seen: Findings) -> Iterator[Figure]:
    s, names = (
        found.settings,
        {"N": "no warmup", f"W:{found.settings.ramp}": f"warmup over {found.settings.ramp} steps"},
    )
    arms = {arm: found.readings[arm] for arm in names if any(len(rows) for rows in found.readings[arm].values())}
    if not arms:
        return
    longest = {arm: max(by_seed.values(), key=len) for arm, by_seed in arms.items()}
    ax = figures.sharpness_trace(
        {names[arm]: [row["step"] for row in rows] for arm, rows in longest.items()},
        {
            names[arm]: {seed: np.array([row["sharpness"] for row in rows], dtype=float) for seed, rows in of.items()}
            for arm, of in arms.items()
        },
        {names[arm]: np.array([row["threshold"] for row in rows], dtype=float) for arm, rows in longest.items()},
        diverged={
            names[arm]: {seed: at for seed in s.seeds if (at := found.by_arm[arm][seed].diverged_at) is not None}
            for arm in arms
        },
    )
    yield Figure(
        "sharpness", "Sharpness against what the learning rate can bear",
        f"Largest eigenvalue of the Hessian on {s.data.n_read} training images (preconditioned for Adam), and the "
        "threshold above which the optimizer is unstable on a quadratic.",
        figures.to_svg(ax, "Sharpness and stability threshold against step", "sharpness"),
    )  # fmt: skip

"""From stored results to the table that the rule judges, and to the numbers that are only shown."""

import math
from typing import Any

from closerlook.studies import predictions
from closerlook.studies.plan import Results
from closerlook.studies.stored import Row, arms_of, row
from closerlook.studies.warmup.arms import JUDGED

BENEFIT = 0.05  # accuracy W - N, the rule's margin, below which a share of it would be noise of the images
NARROW = 1.5  # L(W) over L(N) below which a share of their distance would be noise of the grid


def table(results: Results) -> list[Row]:
    """Rows arm, seed, quantity, value: what the rule judges or shows. A run that diverged has an accuracy of NaN."""
    rows = [
        row(arm, seed, "accuracy", value)
        for arm, by_seed in accuracies(results).items()
        for seed, value in by_seed.items()
    ]
    for seed in results.plan.seeds:
        roles = {arm: f"boundary/{arm}/{seed}" for arm in JUDGED}
        limits = {arm: limit(results, role) for arm, role in roles.items() if role in results.plan.roles}
        rows += [row(arm, seed, "boundary", value) for arm, value in limits.items()]
        rows += [row(arm, seed, "boundary_share", share(limits, arm)) for arm in limits if arm not in ("N", "W")]
    return rows


def share(limits: dict[str, float], arm: str) -> float:
    """How far an arm moves the failure boundary from N's to W's, in log rate.

    NaN where these two are too close, or one of the three is not known.
    """
    if not limits["W"] >= NARROW * limits["N"]:
        return math.nan
    return math.log(limits[arm] / limits["N"]) / math.log(limits["W"] / limits["N"])


def boundary(results: Results, role: str) -> dict[str, Any] | None:
    """A stored failure boundary, with the rates that were tried."""
    return dict(results.folder(role).result("boundary")) if results.has(role) else None


def limit(results: Results, role: str) -> float:
    """The failure boundary alone; NaN where it is missing, or lies somewhere beyond the grid."""
    found = boundary(results, role)
    return math.nan if found is None or found["beyond"] else float(found["boundary"])


def accuracies(results: Results) -> dict[str, dict[int, float]]:
    """Test accuracy at the end by arm and seed; NaN for a run that diverged."""
    found: dict[str, dict[int, float]] = {}
    for arm in arms_of(results):
        for seed in results.plan.seeds:
            role = f"{arm}/{seed}/predict"
            if role in results.plan.roles:
                held = predictions.logits(results, role)
                found.setdefault(arm, {})[seed] = math.nan if held is None else predictions.accuracy(held, "end")
    return found


def counted(results: Results) -> dict[str, dict[int, float]]:
    """The same, with a run that diverged as good as guessing."""
    level = predictions.chance(results)
    return {
        arm: {seed: level if math.isnan(value) else value for seed, value in by_seed.items()}
        for arm, by_seed in accuracies(results).items()
    }


def benefits(results: Results) -> dict[str, dict[int, float]]:
    """Share of warmup's benefit that each arm has, (X - N) / (W - N), by seed; NaN where it has hardly any."""
    values = counted(results)
    n, w = values["N"], values["W"]
    return {
        arm: {
            seed: (value - n[seed]) / (w[seed] - n[seed]) if w[seed] - n[seed] > BENEFIT else math.nan
            for seed, value in by_seed.items()
        }
        for arm, by_seed in values.items()
    }


def traced(results: Results, arm: str, key: str) -> dict[int, list[Row]]:
    """The rows of observers that hold a key, by seed; seeds that were not watched are left out."""
    found = {}
    for seed in results.plan.seeds:
        rows = [each for each in results.folder(f"{arm}/{seed}/train").observations() if key in each]
        if rows:
            found[seed] = rows
    return found

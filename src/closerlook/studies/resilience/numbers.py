"""From stored results to the table that the rule judges, and to the numbers that are only shown."""

import math

from closerlook.landscape import Profile
from closerlook.studies.plan import Results
from closerlook.studies.resilience.settings import MODES
from closerlook.studies.stored import Row, row

CLOSED = 0.02  # of the images: the rule's margin


def table(results: Results) -> list[Row]:
    """Rows arm, seed, quantity, value: what the rule judges. A missing value is NaN.

    All are fractions of the training images: the largest error on a path less that of its worse end, and the error
    at an end, with batch-norm statistics estimated there.
    """
    rows = []
    for seed in results.plan.seeds:
        rows.append(row("G", seed, "self_barrier", barrier(results, f"G/{seed}/self")))
        rows.append(row("G", seed, "train_error", reference_error(results, seed)))
        for mode in modes(results, seed):
            rows.append(row(mode, seed, "segment_barrier", barrier(results, f"{mode}/{seed}/segment")))
            rows.append(row(mode, seed, "curve_barrier", barrier(results, f"{mode}/{seed}/along")))
            if mode in MODES:
                rows.append(row(mode, seed, "train_error", end_error(results, f"{mode}/{seed}/segment", -1)))
    return rows


def modes(results: Results, seed: int) -> list[str]:
    """Modes that are paired with G for a seed, those from its initial weights after the others."""
    named = [f"{mode}{rest}" for rest in ("", " shared") for mode in MODES]
    return [mode for mode in named if f"{mode}/{seed}/along" in results.plan.roles]


def profile_of(results: Results, role: str) -> Profile | None:
    """A stored profile, or None where a run diverged, or the plan has none."""
    return Profile.from_dict(results.folder(role).result("profile")) if results.has(role) else None


def barrier(results: Results, role: str, split: str = "train", metric: str = "error") -> float:
    """The largest value on a path less the larger of its ends; NaN where it is missing."""
    found = profile_of(results, role)
    return math.nan if found is None else found.barrier(split, metric).value


def end_error(results: Results, role: str, place: int, split: str = "train") -> float:
    """Error at the first (0) or the last (-1) point of a path; NaN where it is missing."""
    found = profile_of(results, role)
    return math.nan if found is None else float(found.metric(split, "error")[place])


def reference_error(results: Results, seed: int, split: str = "train") -> float:
    """Error of G, from the first segment that is there."""
    found = (end_error(results, f"{mode}/{seed}/segment", 0, split) for mode in MODES)
    return next((value for value in found if not math.isnan(value)), math.nan)


def budgets(results: Results, mode: str, seed: int) -> dict[int, Profile]:
    """What was read after so many epochs of curve training; 0 is the straight segment."""
    last = results.plan.about["budgets"][-1]
    at = {0: "segment", **{epoch: f"along-{epoch}" for epoch in results.plan.about["budgets"]}, last: "along"}
    found = {epoch: profile_of(results, f"{mode}/{seed}/{name}") for epoch, name in at.items()}
    return {epoch: profile for epoch, profile in found.items() if profile is not None}


def closes_at(results: Results, mode: str, seed: int) -> int | None:
    """Fewest epochs after which no point read on the curve is 2 points worse than its worse end; None if none did."""
    found = budgets(results, mode, seed)
    return next((n for n, profile in found.items() if profile.barrier("train", "error").value < CLOSED), None)


def lengths(results: Results, mode: str, seed: int) -> tuple[float, float] | None:
    """Lengths in weight space of the curve and of the segment, or None where one is missing."""
    roles = [f"{mode}/{seed}/{name}" for name in ("along", "segment")]
    if not all(results.has(role) for role in roles):
        return None
    curve, segment = (float(results.folder(role).result("profile")["length"]) for role in roles)
    return curve, segment

"""The segments between two checkpoints before and after one of them was aligned, as recipes."""

from typing import Any

from closerlook.runs.identity import run_id
from closerlook.runs.recipe import Aligned, AlignRecipe, ProfileRecipe


def segments(reading: dict[str, Any], made: AlignRecipe, batch_norm: bool, repair: bool) -> dict[str, ProfileRecipe]:
    """What to read by name: with batch norm statistics differ, without it the aligned line is repaired if it can be."""
    raw: dict[str, Any] = {"batch_stats": "interpolate"} if batch_norm else {}
    ends = {"raw": (made.a, made.b), "aligned": (made.a, Aligned(run=run_id(made)))}
    lines = {
        "raw": ProfileRecipe(**reading, points=ends["raw"], **raw),
        "refreshed": ProfileRecipe(**reading, points=ends["raw"]),
        "aligned": ProfileRecipe(**reading, points=ends["aligned"], **raw),
    }
    if batch_norm or repair:
        lines["repaired"] = ProfileRecipe(**reading, points=ends["aligned"], repair=not batch_norm)
    return lines

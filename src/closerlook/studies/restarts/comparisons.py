"""Which floors are compared layer by layer: those of one run, and those of two seeds."""

from collections.abc import Mapping
from typing import Any

from closerlook.runs.recipe import CompareRecipe, Snapshot
from closerlook.studies.restarts.settings import Settings

Floors = Mapping[tuple[str, int], Snapshot]
WITHIN = ("R", "K", "S")


def within(s: Settings, seed: int, at: Floors) -> dict[str, CompareRecipe]:
    """Early against late floor of each arm of a seed; R's early one against an untrained network too."""
    early, late = s.floors[-2:]
    roles = {}
    for arm in WITHIN:
        ends = (at[arm, early], at[arm, late])
        roles[f"{arm}/{seed}/layers"] = _compared(s, seed, *ends, nulls=("random",) if arm == "R" else ())
        if s.spectral:
            roles[f"{arm}/{seed}/layers-spectral"] = _compared(s, seed, *ends, conv="spectral", measures=("cca:r2",))
    return roles


def between(s: Settings, a: tuple[int, Floors], b: tuple[int, Floors]) -> dict[str, CompareRecipe]:
    """R's floors of two seeds: late against late, and one's early against the other's late."""
    (first, at_a), (second, at_b) = a, b
    early, late = s.floors[-2:]
    return {
        f"I/{first}-{second}/layers": _compared(s, first, at_a["R", late], at_b["R", late]),
        f"I/{first}-{second}/layers-across": _compared(s, first, at_a["R", early], at_b["R", late]),
    }


def _compared(s: Settings, seed: int, a: Snapshot, b: Snapshot, **other: Any) -> CompareRecipe:
    # Test images: the training images of one seed would be known to its networks and new to another's.
    asked: dict[str, Any] = {"measures": (f"svcca:{s.directions},r2", "cka", "procrustes"), **other}
    return CompareRecipe(
        data=s.data, model=s.model, a=a, b=b, layers_a=s.layers, split="test",
        seed=seed + 1_000_000, **asked,  # of the untrained network: weights that no arm began with
    )  # fmt: skip

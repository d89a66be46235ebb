"""Which weights are compared with those of the start, layer by layer: at equal step, summed rate, loss, and later."""

from collections.abc import Mapping
from itertools import accumulate

from closerlook.runs.identity import run_id
from closerlook.runs.recipe import AtLoss, CompareRecipe, PointRef, Snapshot, TrainRecipe
from closerlook.schedules import Warmup
from closerlook.studies.warmup.settings import Settings

BASES = {
    "step": "at the same step", "sum": "at the same summed learning rate", "loss": "at the same training loss",
    "ramp": "at the end of the ramp",
}  # fmt: skip
COMPARED = ("N", "W")  # on every basis
AT_RAMP = ("N", "W", "WD", "WS", "FD")


def from_start(s: Settings, seed: int, trained: Mapping[str, TrainRecipe]) -> dict[str, CompareRecipe]:
    """The layers of N and W on every basis, and of the other arms at the end of the ramp, against those of step 0."""
    at = {arm: _at(s, recipe) for arm, recipe in trained.items() if arm in AT_RAMP}
    points: dict[tuple[str, str], PointRef] = {(arm, "ramp"): steps["ramp"] for arm, steps in at.items()}
    points |= {(arm, "step"): at[arm]["step"] for arm in COMPARED}
    points |= {("N", "sum"): at["N"]["step"], ("W", "sum"): at["W"]["sum"]}
    # W never has a loss as high as N early on; N comes down to W's later, if at all.
    points |= {
        ("N", "loss"): AtLoss(run=run_id(trained["N"]), like=at["W"]["step"]), ("W", "loss"): at["W"]["step"],
    }  # fmt: skip
    return {
        f"{arm}/{seed}/layers-{basis}": _compared(s, seed, Snapshot(run=run_id(trained[arm]), step=0), point)
        for (arm, basis), point in points.items()
    }


def same_sum(s: Settings) -> int:
    """The step at which W's learning rates sum to at least those of N up to the early step."""
    clock = s.plain(0).clock
    without, within = s.after.factor(clock), Warmup(s.ramp, after=s.after).factor(clock)
    goal = sum(without(step) for step in range(s.early))
    sums = accumulate(within(step) for step in range(clock.total_steps))
    return next((step for step, total in enumerate(sums, 1) if total >= goal), clock.total_steps)


def _at(s: Settings, recipe: TrainRecipe) -> dict[str, Snapshot]:
    steps = {"step": s.early, "sum": same_sum(s), "ramp": s.ramp_steps}
    return {basis: Snapshot(run=run_id(recipe), step=step) for basis, step in steps.items()}


def _compared(s: Settings, seed: int, a: Snapshot, b: PointRef) -> CompareRecipe:
    return CompareRecipe(
        data=s.data, model=s.network.model, a=a, b=b, layers_a=s.layers,
        measures=(f"svcca:{s.directions},r2", "cka", "procrustes"), split="test", seed=seed,
    )  # fmt: skip

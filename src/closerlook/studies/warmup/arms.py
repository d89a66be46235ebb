"""The arms of the warmup study: each is plain training with one thing changed."""

from collections.abc import Mapping

from closerlook.runs.recipe import TrainRecipe
from closerlook.schedules import Constant, Warmup
from closerlook.studies.warmup.settings import Settings
from closerlook.training.interventions import AnyIntervention, Clip, Freeze, GroupRate, RandomRate

JUDGED = ("N", "W", "WD", "WS", "P")
ARMS = {
    "N": "N: no warmup", "W": "W: all warmed up", "WD": "WD: deep block warmed up",
    "WS": "WS: all but the deep block", "P": "P: random set", "FD": "FD: deep block frozen", "SB": "SB: small batch",
    "C": "C: gradient clipped", "HL": "HL: slow head",
}  # fmt: skip


def name_of(arm: str) -> str:
    """An arm in words."""
    kind, _, rest = arm.partition(":")
    if not rest:
        return ARMS[arm]
    return {"WB": f"WB: {rest} warmed up", "FB": f"FB: {rest} frozen", "FD": f"FD: deep block frozen for {rest}"}[kind]


def arms(s: Settings, seed: int, mapped: bool) -> dict[str, TrainRecipe]:
    """Trainings by arm; those of other blocks, freezes of other lengths and small batches on `mapped` seeds only."""
    plain, ramp = s.plain(seed), Warmup(s.ramp)
    found = {name: _with(plain, change) for name, change in _changes(s, seed, ramp, mapped).items()}
    found["W"] = plain.model_copy(update={"schedule": Warmup(s.ramp, after=s.after)})
    if mapped:
        small = {"batch_size": s.small_batch, "optimizer": s.optimizer.model_copy(update={"lr": s.small_rate})}
        found["SB"] = plain.model_copy(update=small)
    return found


def _changes(s: Settings, seed: int, ramp: Warmup, mapped: bool) -> Mapping[str, AnyIntervention | None]:
    blocks, deep = s.network.blocks, s.network.blocks[s.network.deep]
    found: dict[str, AnyIntervention | None] = {
        "N": None,
        "WD": GroupRate(ramp, deep),
        "WS": GroupRate(ramp, "*", but=deep),
        "P": RandomRate(ramp, like=deep, seed=seed),
        "FD": Freeze(deep, end=s.ramp),
    }
    for block, patterns in list(blocks.items())[:-1] if mapped else ():
        found |= {f"WB:{block}": GroupRate(ramp, patterns), f"FB:{block}": Freeze(patterns, end=s.ramp)}
    for length in s.freezes if mapped else ():
        found[f"FD:{length}"] = Freeze(deep, end=length)
    if s.clip is not None:
        found["C"] = Clip(s.clip)
    if s.slow_head is not None:
        found["HL"] = GroupRate(Constant(s.slow_head), deep)
    return found


def _with(plain: TrainRecipe, change: AnyIntervention | None) -> TrainRecipe:
    return plain if change is None else plain.model_copy(update={"interventions": (change,)})

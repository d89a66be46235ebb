"""The trainings of a diagnosis, by what is changed in them."""

from collections.abc import Mapping
from typing import Any

from closerlook.diagnosis.settings import SLOW, Settings
from closerlook.runs.recipe import TrainRecipe
from closerlook.schedules import Warmup
from closerlook.training.interventions import Clip, Freeze, GroupRate


def recipes_of(settings: Settings) -> dict[str, TrainRecipe]:
    """Every training by ``arm/seed``.

    N nothing changed; W:n warmed up over n steps; WB:block that block alone warmed up, FB:block it alone frozen, each
    for the longest warmup; C the gradient clipped; Q a quarter of the learning rate.
    """
    return {f"{arm}/{seed}": recipe for seed in settings.seeds for arm, recipe in _arms(settings, seed).items()}


def arms_of(settings: Settings) -> list[str]:
    """The arms in their order."""
    return list(_arms(settings, settings.seeds[0]))


def name_of(arm: str, settings: Settings) -> str:
    """An arm in words."""
    kind, _, rest = arm.partition(":")
    return {
        "N": "no warmup",
        "W": f"warmup over {rest} steps",
        "WB": f"{rest}: warmed up alone",
        "FB": f"{rest}: frozen alone",
        "C": f"gradient clipped to {settings.clip:g}",
        "Q": f"learning rate {SLOW * settings.optimizer.lr:.3g}",
    }[kind]


def _arms(settings: Settings, seed: int) -> dict[str, TrainRecipe]:
    plain = settings.plain(seed)
    slow = settings.optimizer.model_copy(update={"lr": SLOW * settings.optimizer.lr})
    changes: Mapping[str, dict[str, Any]] = {
        "N": {"watch": settings.traced},
        **{f"W:{length}": {"schedule": Warmup(f"{length}it")} for length in settings.lengths[:-1]},
        f"W:{settings.ramp}": {"schedule": Warmup(f"{settings.ramp}it"), "watch": settings.traced},
        **{f"WB:{block}": {"interventions": (_ramped(settings, own),)} for block, own in settings.blocks.items()},
        **{f"FB:{block}": {"interventions": (_frozen(settings, own),)} for block, own in settings.blocks.items()},
        "C": {"interventions": (Clip(settings.clip),)},
        "Q": {"optimizer": slow},
    }
    return {arm: plain.model_copy(update=change) for arm, change in changes.items()}


def _ramped(settings: Settings, block: tuple[str, ...]) -> GroupRate:
    return GroupRate(Warmup(f"{settings.ramp}it"), block)


def _frozen(settings: Settings, block: tuple[str, ...]) -> Freeze:
    return Freeze(block, end=f"{settings.ramp}it")

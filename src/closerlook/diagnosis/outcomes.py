"""What the finished trainings of a diagnosis came to."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from closerlook.curvature.critical_lr import critical_lr
from closerlook.diagnosis.arms import arms_of, recipes_of
from closerlook.diagnosis.settings import MARGIN, Settings
from closerlook.errors import CloserlookError
from closerlook.runs.environment import one_thread
from closerlook.runs.store import RunFolder, Store
from closerlook.steps.setting import fixed_batches, network, parts
from closerlook.training.optimizers import optimizer_factory
from closerlook.watching.findings import Instability, instability


@dataclass(frozen=True)
class Outcome:
    """The end of one training: what it reached on the validation images; a diverged one counts as guessing."""

    accuracy: float
    loss: float | None
    diverged_at: int | None

    def learned(self, chance: float) -> bool:
        """Whether it ended clearly better than guessing."""
        return self.diverged_at is None and self.accuracy > chance + MARGIN


@dataclass(frozen=True)
class Outcomes:
    """All trainings by arm and seed, the readings of sharpness, and the critical learning rate at the start."""

    settings: Settings
    chance: float
    by_arm: Mapping[str, Mapping[int, Outcome]]
    readings: Mapping[str, Mapping[int, list[dict[str, Any]]]]
    critical: Mapping[int, float | None]
    cpu_seconds: float

    def instability(self, arm: str, seed: int) -> Instability | None:
        """The instability of a traced training."""
        return instability([row for row in self.readings[arm][seed] if row["threshold"] is not None])


def outcomes(settings: Settings, store: Store) -> Outcomes:
    """Read the stored numbers of a diagnosis whose trainings are finished."""
    folders = {role: store.folder(recipe) for role, recipe in recipes_of(settings).items()}
    validation = parts(settings.data).validation.targets
    chance = float(torch.bincount(validation).max()) / len(validation)
    traced = ("N", f"W:{settings.ramp}")
    return Outcomes(
        settings=settings,
        chance=chance,
        by_arm={
            arm: {seed: _outcome(folders[f"{arm}/{seed}"], chance) for seed in settings.seeds}
            for arm in arms_of(settings)
        },
        readings={arm: {seed: _readings(folders[f"{arm}/{seed}"]) for seed in settings.seeds} for arm in traced},
        critical={seed: _critical(settings, seed) for seed in settings.seeds},
        cpu_seconds=sum(folder.seconds()[1] for folder in folders.values()),
    )


def _outcome(folder: RunFolder, chance: float) -> Outcome:
    diverged_at = folder.result("outcome")["diverged_at"]
    if diverged_at is not None:
        return Outcome(chance, None, diverged_at)
    last = folder.journal()[-1]
    return Outcome(last["validation_accuracy"], last["loss"], None)


def _readings(folder: RunFolder) -> list[dict[str, Any]]:
    return [{**row, "blocks": {}} for row in folder.observations() if "sharpness" in row]


def _critical(settings: Settings, seed: int) -> float | None:
    """The critical learning rate of the first step, along the optimizer's own direction; None where there is none.

    Dropout is off, as in every reading.
    """
    model = network(settings.model, settings.data, seed)
    optimizer = optimizer_factory(settings.optimizer.name, **settings.optimizer.settings())(model.parameters())
    read = parts(settings.data).read
    with one_thread(), suppress(CloserlookError):
        found = float(critical_lr(model, fixed_batches(read, len(read.targets)), direction=optimizer))
        return found if math.isfinite(found) else None
    return None

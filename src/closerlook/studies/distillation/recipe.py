"""The distillation study as a graph: teachers, students, transplants, predictions and comparisons, by role."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from closerlook.runs.identity import run_id
from closerlook.runs.recipe import (
    CompareRecipe,
    PredictRecipe,
    ProbesRecipe,
    Recipe,
    Seeds,
    Snapshot,
    Teacher,
    TrainRecipe,
)
from closerlook.studies.distillation.settings import SCALES, Settings
from closerlook.studies.distillation.words import rows
from closerlook.studies.plan import Scale, StudyPlan, at_scale
from closerlook.training.interventions import Freeze

Roles = dict[str, Recipe]
COMPARED = ("H", "D", "SP")  # with every teacher
CONTROLS = ("LS", "U")  # with the own teacher


def plan(scale: Scale, seeds: Iterable[int] | None = None, data: str | None = None) -> StudyPlan:
    """The study at a scale, with its own seeds and data or others.

    Raises
    ------
    UsageError
        An unknown scale, or no seed.
    """
    settings, chosen = at_scale(SCALES, scale, seeds, data)
    settings = settings.model_copy(update={"taught": settings.taught.model_copy(update=_named(settings))})
    by_seed = {seed: trainings(settings.at(seed), seed) for seed in chosen}
    roles: Roles = {}
    for seed, runs in by_seed.items():
        own = settings.at(seed)
        for arm, recipe in runs.items():
            roles[f"{arm}/{seed}/train"] = recipe
            roles[f"{arm}/{seed}/predict"] = PredictRecipe(
                data=recipe.data, model=recipe.model, points={"end": end_of(recipe)}
            )
        pairs = (*product(COMPARED, chosen), *((arm, seed) for arm in CONTROLS if arm in runs))
        for arm, other in pairs:
            roles[f"{arm}/{seed}/layers-{other}"] = _compared(own, seed, runs[arm], by_seed[other]["T"])
        for arm in COMPARED if own.probed else ():
            roles[f"{arm}/{seed}/probes-labels"] = _probed(own, seed, runs[arm])
            roles[f"{arm}/{seed}/probes-teacher"] = _probed(own, seed, runs[arm]).model_copy(
                update={"model_b": own.teacher, "b": end_of(runs["T"])}
            )
    about = {"half": (settings.parts.half,)}
    return StudyPlan("distillation", scale, chosen, settings.rule, "demonstration", roles, rows(settings), about, data)


def _named(s: Settings) -> dict[str, object]:
    return {"name": s.data.name, "resolution": s.data.resolution, "source": s.data.source}


def end_of(recipe: TrainRecipe) -> Snapshot:
    """The last weights of a training."""
    return Snapshot(run=run_id(recipe), step=recipe.clock.total_steps)


def trainings(s: Settings, seed: int) -> dict[str, TrainRecipe]:
    """Every training of a seed by arm; the students share initial weights, data order and subset."""
    teacher = TrainRecipe(
        data=s.taught, model=s.teacher, optimizer=s.optimizer, schedule=s.schedule, epochs=s.teacher_epochs,
        batch_size=s.teacher_batch, augment=s.teacher_augment, precision=s.precision, seeds=Seeds.of(seed),
    )  # fmt: skip
    student = TrainRecipe(
        data=s.data, model=s.student, optimizer=s.optimizer, schedule=s.schedule, epochs=s.epochs,
        batch_size=s.batch_size, augment=s.augment, precision=s.precision, seeds=Seeds.of(seed),
    )  # fmt: skip
    target = Teacher(
        model=s.teacher, point=end_of(teacher), temperature=s.temperature, mixing=s.mixing,
        soft="live" if s.augment else "cached",
    )  # fmt: skip
    found = {"T": teacher, "H": student, "D": _taught(student, target)}
    found["SP"] = _taught(student, target.model_copy(update={"soft": "permuted", "seed": seed}))
    found |= _transplants(s, student, target)
    for temperature, mixing in s.softer:
        other = target.model_copy(update={"temperature": temperature, "mixing": mixing})
        found[f"D:T={temperature:g} mixing={mixing:g}"] = _taught(student, other)
    if s.controls:
        found |= _of_labels(s, student, found["D"]) | _controls(s, teacher, student, target)
    return found


def _of_labels(s: Settings, student: TrainRecipe, distilled: TrainRecipe) -> dict[str, TrainRecipe]:
    """One half of the distilled student kept, the other trained anew on labels: which half has what it learnt."""
    shallow, deep = s.parts.before(s.parts.half), s.parts.after(s.parts.half)
    return {
        "DH": _grafted(s, student, distilled, kept=shallow, fresh=deep),
        "HD": _grafted(s, student, distilled, kept=deep, fresh=shallow),
    }


def _controls(s: Settings, teacher: TrainRecipe, student: TrainRecipe, target: Teacher) -> dict[str, TrainRecipe]:
    """Softness without knowledge (LS), a teacher without knowledge (U), and the student as its own teacher (SD)."""
    changes: dict[str, dict[str, Any]] = {
        "LS": {"soft": "smoothed"},
        "U": {"point": Snapshot(run=run_id(teacher), step=0)},
        "SD": {"model": s.student, "point": end_of(student)},
    }
    return {arm: _taught(student, target.model_copy(update=change)) for arm, change in changes.items()}


def _taught(student: TrainRecipe, teacher: Teacher) -> TrainRecipe:
    return student.model_copy(update={"teacher": teacher})


def _transplants(s: Settings, student: TrainRecipe, teacher: Teacher) -> Mapping[str, TrainRecipe]:
    """The hard-label student with the layers after (TL) or before (TE) a split trained anew by the teacher.

    The others keep its weights and statistics. The final linear layer is trained anew in both.
    """
    found = {}
    for split in (s.parts.half, *s.splits):
        name = "" if split == s.parts.half else f":{split}"
        for arm, kept, fresh in (
            ("TL", s.parts.before(split), s.parts.after(split)),
            ("TE", s.parts.after(split), s.parts.before(split)),
        ):
            found[f"{arm}{name}"] = _grafted(s, _taught(student, teacher), student, kept, fresh)
    return found


def _grafted(
    s: Settings, recipe: TrainRecipe, source: TrainRecipe, kept: tuple[str, ...], fresh: tuple[str, ...]
) -> TrainRecipe:
    """A training that keeps some layers of a finished one as they are, and trains the others anew."""
    frozen = Freeze(kept, end="1dur", norm="eval")
    change = {"weights": end_of(source), "fresh": (*fresh, *s.parts.last), "interventions": (frozen,)}
    return recipe.model_copy(update=change)


def _compared(s: Settings, seed: int, student: TrainRecipe, teacher: TrainRecipe) -> CompareRecipe:
    return CompareRecipe(
        data=s.data, model=s.student, model_b=s.teacher, a=end_of(student), b=end_of(teacher), layers_a=s.layers,
        layers_b=s.teacher_layers, measures=(f"svcca:{s.directions},r2", "cka", "procrustes"), split="test", seed=seed,
    )  # fmt: skip


def _probed(s: Settings, seed: int, student: TrainRecipe) -> ProbesRecipe:
    return ProbesRecipe(data=s.data, model=s.student, a=end_of(student), layers=s.layers, seed=seed)

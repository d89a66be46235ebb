"""The warmup study as a graph: arms, predictions, representations, phase map and failure boundaries, by role."""

from collections.abc import Iterable, Iterator

import numpy as np

from closerlook.durations import Duration, to_steps
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import BoundaryRecipe, PredictRecipe, Recipe, Snapshot, TrainRecipe, Watch
from closerlook.schedules import Warmup
from closerlook.studies.plan import Scale, StudyPlan, at_scale
from closerlook.studies.warmup import comparisons
from closerlook.studies.warmup.arms import JUDGED, arms
from closerlook.studies.warmup.comparisons import COMPARED
from closerlook.studies.warmup.settings import SCALES, Network, Settings
from closerlook.studies.warmup.words import rows

Roles = dict[str, Recipe]


def plan(scale: Scale, seeds: Iterable[int] | None = None, data: str | None = None) -> StudyPlan:
    """The study at a scale, with its own seeds and data or others.

    Raises
    ------
    UsageError
        An unknown scale, or no seed.
    """
    settings, chosen = at_scale(SCALES, scale, seeds, data)
    roles: Roles = {}
    for number, seed in enumerate(chosen):
        roles |= of_seed(settings.at(seed), seed, number)
    about = {"ramp": (settings.ramp_steps,), "early": (settings.early,)}
    return StudyPlan("warmup", scale, chosen, settings.rule, "demonstration", roles, rows(settings), about, data)


def of_seed(s: Settings, seed: int, number: int) -> Roles:
    """Every recipe of a seed, the `number`-th of the study."""
    roles: Roles = {}
    trained = {arm: _kept(s, arm, recipe, number) for arm, recipe in arms(s, seed, number < s.mapped).items()}
    for arm, recipe in trained.items():
        end = Snapshot(run=run_id(recipe), step=recipe.clock.total_steps)
        roles[f"{arm}/{seed}/train"] = recipe
        roles[f"{arm}/{seed}/predict"] = PredictRecipe(data=s.data, model=recipe.model, points={"end": end})
    roles |= comparisons.from_start(s, seed, trained)
    if number < s.phase.seeds:
        roles |= _phase(s, seed, trained)
    roles |= {f"boundary/{arm}/{seed}": recipe for arm, recipe in _boundaries(s, s.network, seed, JUDGED)}
    for name, network in s.boundaries.others.items() if s.boundaries else ():
        if s.boundaries and number < s.boundaries.other_seeds:
            of_other = _boundaries(s, network, seed, JUDGED[:4])
            roles |= {f"boundary of {name}/{arm}/{seed}": recipe for arm, recipe in of_other}
    return roles


def _kept(s: Settings, arm: str, recipe: TrainRecipe, number: int) -> TrainRecipe:
    """The training with its snapshots, and on the first seeds with what is watched."""
    times: tuple[Duration, ...] = (f"{s.early}it", s.ramp)
    if arm in COMPARED:
        times = (*times, f"{comparisons.same_sum(s)}it", *s.kept)
    trace = s.traces.get(arm) if number < s.traced else None
    watch = trace and Watch(
        layers_every=1, sharpness_every=trace.every, sharpness_until=trace.until, examples=s.trace_examples,
        blocks=s.network.blocks,
    )  # fmt: skip
    steps = {to_steps(time, recipe.clock): time for time in times}
    snapshots = tuple(steps[step] for step in sorted(steps))
    return recipe.model_copy(update={"snapshots": snapshots, **({"watch": watch} if watch else {})})


def _phase(s: Settings, seed: int, trained: dict[str, TrainRecipe]) -> Roles:
    """Trainings over learning rate and length of warmup; those that an arm has already are the arm's."""
    found: Roles = {}
    for factor in s.phase.factors:
        for length in s.phase.lengths:
            schedule = Warmup(length, after=s.after) if to_steps(length, s.plain(seed).clock) else s.after
            optimizer = s.optimizer.model_copy(update={"lr": factor * s.optimizer.lr})
            recipe = s.plain(seed).model_copy(update={"schedule": schedule, "optimizer": optimizer})
            same = [arm for arm in COMPARED if _training_of(trained[arm]) == recipe]
            found[f"phase/{factor:g}/{length}/{seed}"] = trained[same[0]] if same else recipe
    return found


def _training_of(recipe: TrainRecipe) -> TrainRecipe:
    """What is trained, without what is kept and watched."""
    return recipe.model_copy(update={"snapshots": (), "watch": Watch()})


def _boundaries(
    s: Settings, network: Network, seed: int, names: tuple[str, ...]
) -> Iterator[tuple[str, BoundaryRecipe]]:
    """Failure boundaries of the arms of a network; all those of a seed lie on one grid, moved by the seed."""
    if s.boundaries is None:
        return
    here = s.model_copy(update={"network": network})
    for arm, recipe in arms(here, seed, mapped=False).items():
        if arm in names:
            yield arm, BoundaryRecipe(
                train=recipe, low=s.boundaries.low, high=s.boundaries.high, factor=s.boundaries.factor,
                offset=float(np.random.default_rng([seed, 1]).random()),
            )  # fmt: skip

"""The resilience study as a graph: modes, segments, curves and their readings, by role."""

from collections.abc import Iterable
from typing import Any, Literal

from closerlook.durations import Duration
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import (
    Aligned,
    AlignRecipe,
    Bend,
    ConnectRecipe,
    ModelSpec,
    PointRef,
    ProfileRecipe,
    Recipe,
    Seeds,
    Snapshot,
    TrainRecipe,
)
from closerlook.schedules import Constant, LinearDecay
from closerlook.studies.plan import Scale, StudyPlan, at_scale
from closerlook.studies.resilience.settings import MODES, SCALES, Budget, Extent, Settings
from closerlook.studies.resilience.words import rows

Roles = dict[str, Recipe]
Kind = Literal["polychain", "bezier"]


def plan(scale: Scale, seeds: Iterable[int] | None = None, data: str | None = None) -> StudyPlan:
    """The study at a scale, with its own seeds and data or others.

    Raises
    ------
    UsageError
        An unknown scale, or no seed.
    """
    settings, chosen = at_scale(SCALES, scale, seeds, data)
    roles: Roles = {}
    for seed in chosen:
        roles |= Pairs(settings.at(seed), seed, seed == chosen[0]).roles()
    about = {"budgets": (*settings.curve.read_at, settings.curve.epochs), "epochs": (settings.epochs,)}
    return StudyPlan("resilience", scale, chosen, settings.rule, settings.setting, roles, rows(settings), about, data)


class Pairs:
    """The runs of one seed: every mode is paired with G."""

    def __init__(self, settings: Settings, seed: int, first: bool) -> None:
        self.settings, self.seed, self.first = settings, seed, first
        self.modes = self._modes()

    def roles(self) -> Roles:
        """Every recipe of this seed by role."""
        s, (reference, *modes) = self.settings, self.modes
        found: Roles = {f"{mode}/{self.seed}/train": recipe for mode, recipe in self.modes.items()}
        for mode in modes:
            found |= self._joined(mode, self._end(reference), self._end(mode), s.model, s.curve)
        found |= self._self()
        if self._on(s.aligned_on):
            found |= self._aligned()
        if self._on(s.bezier_on):
            found |= self._joined("bezier", self._end("G"), self._end("G'"), s.model, s.curve, "bezier")
        return {**found, **(self._narrow() if self.first else {})}

    def _on(self, extent: Extent | None) -> bool:
        return extent == "all" or (extent == "first" and self.first)

    def _modes(self) -> dict[str, TrainRecipe]:
        s = self.settings
        found = {"G": self._train(s.model, Seeds.of(self.seed), forks=(s.last,))}
        for number, mode in enumerate(MODES, 1):
            # A mode is another run altogether: only the images that it may see are those of G.
            seeds = Seeds.of(self.seed + number * 1_000_000)
            found[mode] = self._changed(mode, seeds)
            if mode in s.shared and self._on(s.shared_on):
                found[f"{mode} shared"] = self._changed(mode, seeds.model_copy(update={"init": self.seed}))
        return found

    def _changed(self, mode: str, seeds: Seeds) -> TrainRecipe:
        s = self.settings
        wider = s.model.model_copy(update={"options": {**s.model.options, "init_gain": s.gain}})
        plain = self._train(wider if mode == "E" else s.model, seeds)
        changes: dict[str, dict[str, Any]] = {
            "G'": {}, "A": {"batch_size": s.large_batch}, "B": {"optimizer": s.adam},
            "C": {"schedule": LinearDecay()},
            "D": {"optimizer": s.optimizer.model_copy(update={"weight_decay": s.small_decay})},
            "E": {}, "F": {"augment": False},
        }  # fmt: skip
        return plain.model_copy(update=changes[mode])

    def _train(self, model: ModelSpec, seeds: Seeds, forks: tuple[Duration, ...] = ()) -> TrainRecipe:
        s = self.settings
        return TrainRecipe(
            data=s.data, model=model, optimizer=s.optimizer, schedule=s.schedule, epochs=s.epochs,
            batch_size=s.batch_size, augment=True, precision=s.precision, seeds=seeds, forks=forks,
        )  # fmt: skip

    def _joined(
        self, name: str, a: PointRef, b: PointRef, model: ModelSpec, budget: Budget, curve: Kind = "polychain"
    ) -> Roles:
        """Segment and curve from a to b with their readings, under a name."""
        s, at = self.settings, f"{name}/{self.seed}"
        trained = ConnectRecipe(
            data=s.data, model=model, a=a, b=b, curve=curve, epochs=budget.epochs, batch_size=s.batch_size,
            augment=True, optimizer=budget.optimizer, schedule=budget.schedule, precision=s.precision,
            snapshots=tuple(f"{epoch}ep" for epoch in budget.read_at), seed=self.seed,
        )  # fmt: skip
        run = run_id(trained)
        path: dict[str, Any] = {"model": model, "curve": curve}
        roles: Roles = {
            f"{at}/segment": self._profile(a, b, t=s.t_segment, model=model),
            f"{at}/curve": trained,
            f"{at}/along": self._profile(a, Bend(run=run), b, t=s.t_curve, **path),
        }
        for epoch in budget.read_at:
            bend = Bend(run=run, step=trained.step(f"{epoch}ep"))
            roles[f"{at}/along-{epoch}"] = self._profile(a, bend, b, t=s.t_segment, splits=("train",), **path)
        return roles

    def _profile(self, *points: PointRef, t: int, **settings: Any) -> ProfileRecipe:
        return ProfileRecipe(data=self.settings.data, points=points, t=t, **settings)

    def _end(self, mode: str) -> Snapshot:
        return _last(self.modes[mode])

    def _self(self) -> Roles:
        s, own = self.settings, self.modes["G"]
        rate = own.schedule.factor(own.clock)(own.clock.total_steps - 1)
        longer = self._train(s.model, own.seeds).model_copy(update={
            "schedule": Constant(rate), "epochs": s.self_epochs, "start": self._end("G"),
        })  # fmt: skip
        ends = (self._end("G"), _last(longer))
        return {
            f"G/{self.seed}/longer": longer,
            f"G/{self.seed}/self": self._profile(*ends, t=s.t_segment, model=s.model, splits=("train",)),
        }

    def _aligned(self) -> Roles:
        """G' with its units in the order of G: the segment as it is, with what repairs it, and the curve."""
        s, a, b = self.settings, self._end("G"), self._end("G'")
        permuted = AlignRecipe(data=s.data, model=s.model, a=a, b=b, seed=self.seed)
        there = Aligned(run=run_id(permuted))
        kept: dict[str, Any] = {"t": s.t_segment, "model": s.model, "splits": ("train",), "batch_stats": "interpolate"}
        repaired: Roles = {
            f"aligned/{self.seed}/repaired": self._profile(
                a, there, t=s.t_segment, model=s.model, splits=("train",), repair=True
            )
        }
        return {
            **(repaired if s.repair else {}),
            f"aligned/{self.seed}/align": permuted,
            f"aligned/{self.seed}/raw": self._profile(a, b, **kept),
            f"aligned/{self.seed}/kept": self._profile(a, there, **kept),
            **self._joined("aligned", a, there, s.model, s.curve),
        }

    def _narrow(self) -> Roles:
        """Two equal runs of a narrow network, and a short budget: a pair that is expected not to close."""
        s = self.settings
        runs = {f"{mode} narrow": self._train(s.narrow, self.modes[mode].seeds) for mode in ("G", "G'")}
        a, b = map(_last, runs.values())
        trained: Roles = {f"{name}/{self.seed}/train": recipe for name, recipe in runs.items()}
        return {**trained, **self._joined("G' narrow", a, b, s.narrow, s.narrow_budget)}


def _last(recipe: TrainRecipe) -> Snapshot:
    return Snapshot(run=run_id(recipe), step=recipe.clock.total_steps)

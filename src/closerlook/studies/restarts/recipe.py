"""The restarts study as a graph: arms, floors, segments, curves and planes, by role."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

from closerlook.runs.identity import run_id
from closerlook.runs.recipe import (
    Average,
    BarriersRecipe,
    Bend,
    ConnectRecipe,
    PointRef,
    PredictRecipe,
    ProfileRecipe,
    Recipe,
    Seeds,
    Snapshot,
    SurfaceRecipe,
    TrainRecipe,
)
from closerlook.schedules import Constant, Cosine, Held, LinearDecay, Restarts, Schedule, StepDecay
from closerlook.studies.plan import Scale, StudyPlan, at_scale
from closerlook.studies.restarts import comparisons
from closerlook.studies.restarts.settings import SCALES, Settings

Roles = dict[str, Recipe]


def plan(scale: Scale, seeds: Iterable[int] | None = None, data: str | None = None) -> StudyPlan:
    """The study at a scale, with its own seeds and data or others.

    Raises
    ------
    UsageError
        An unknown scale, or no seed.
    """
    settings, chosen = at_scale(SCALES, scale, seeds, data)
    arms = {seed: Arms(settings.at(seed), seed, seed == chosen[0]) for seed in chosen}
    roles: Roles = {}
    for own in arms.values():
        roles |= own.roles()
    roles |= between_seeds(list(arms.values()))
    about = {"floors": settings.floors, "epochs": (settings.epochs,), "cool": (settings.cool,)}
    return StudyPlan("restarts", scale, chosen, settings.rule, "demonstration", roles, _rows(settings), about, data)


class Arms:
    """The runs of one seed; every arm shares its initial weights, data order and subset."""

    def __init__(self, settings: Settings, seed: int, first: bool) -> None:
        self.settings, self.seed, self.first = settings, seed, first
        self.trunks = self._trunks()
        self.floors = self._floors()

    def roles(self) -> Roles:
        """Every recipe of this seed by role."""
        trained = {f"{arm}/{self.seed}/{name}": recipe for (arm, name), recipe in self.trunks.items()}
        layers = comparisons.within(self.settings, self.seed, self.floors)
        return {**trained, **self._segments(), **self._curves(), **self._predictions(), **layers, **self._plane()}

    def _trunks(self) -> dict[tuple[str, str], TrainRecipe]:
        s = self.settings
        half = (1 + s.final) / 2
        every = tuple(sorted({*range(0, s.epochs + 1, max(s.cycle, 1)), *s.floors}))
        early = tuple(floor - s.cool for floor in s.floors[-2:])
        end = s.epochs if s.tail else early[-1]
        runs = {
            ("R", "train"): self._train(self._cycles(s.cycle), s.epochs, snapshots=every, forks=s.floors[-2:]),
            ("K", "train"): self._train(Constant(half), early[-1], snapshots=_upto(every, early[-1]), forks=early),
            ("S", "train"): self._train(
                StepDecay(at=s.drops, gamma=s.drop), end, snapshots=_upto(every, end), forks=early
            ),
        }
        runs["R", "longer"] = self._branch(runs["R", "train"], s.floors[-1], Constant(s.final), s.self_epochs)
        for arm in ("K", "S"):
            factor = runs[arm, "train"].schedule.factor(runs[arm, "train"].clock)
            for floor, start in zip(s.floors[-2:], early, strict=True):
                # The last step, not the one after it, is at R's final rate.
                cooling = LinearDecay(start=factor(s.steps(start) - 1), final=s.final, end=f"{s.steps(s.cool) - 1}it")
                runs[arm, f"cool{floor}"] = self._branch(runs[arm, "train"], start, cooling, s.cool)
        if self.first or s.forks == "all":
            last = s.floors[-1] - s.floors[-2]
            runs["R'", "train"] = self._branch(
                runs["R", "train"], s.floors[-2], self._cycles(last - s.rest), last, order=self.seed + 1_000_000
            )
        if s.cosine:
            runs["C", "train"] = self._train(Cosine(final=s.final), s.floors[-1], snapshots=_upto(every, s.floors[-1]))
        return runs

    def _cycles(self, first: int) -> Schedule:
        s = self.settings
        cycles = Restarts(first=f"{first}ep", mult=s.mult, final=s.final, rest=s.rest)
        return Held(cycles) if s.per_epoch else cycles

    def _train(self, schedule: Schedule, epochs: int, **kept: Any) -> TrainRecipe:
        s = self.settings
        return TrainRecipe(
            data=s.data, model=s.model, optimizer=s.optimizer, batch_size=s.batch_size, augment=s.augment,
            precision=s.precision, schedule=schedule, epochs=epochs, seeds=Seeds.of(self.seed), **kept,
        )  # fmt: skip

    def _branch(
        self, trunk: TrainRecipe, epoch: int, schedule: Schedule, epochs: int, order: int | None = None
    ) -> TrainRecipe:
        branch = self._train(schedule, epochs, start=Snapshot(run=run_id(trunk), step=self.settings.steps(epoch)))
        return (
            branch
            if order is None
            else branch.model_copy(update={"seeds": trunk.seeds.model_copy(update={"order": order})})
        )

    def _floors(self) -> dict[tuple[str, int], Snapshot]:
        s = self.settings
        at = {("R", floor): self._snapshot(("R", "train"), floor) for floor in s.floors}
        for arm in ("K", "S"):
            at |= {(arm, floor): self._snapshot((arm, f"cool{floor}"), s.cool) for floor in s.floors[-2:]}
        if ("R'", "train") in self.trunks:
            at["R'", s.floors[-1]] = self._snapshot(("R'", "train"), s.floors[-1] - s.floors[-2])
        if s.cosine:
            at["C", s.floors[-1]] = self._snapshot(("C", "train"), s.floors[-1])
        return at

    def _snapshot(self, run: tuple[str, str], epoch: int) -> Snapshot:
        return Snapshot(run=run_id(self.trunks[run]), step=self.settings.steps(epoch))

    def profile(self, *points: PointRef, t: int, **settings: Any) -> ProfileRecipe:
        """A reading along the path through `points`, on this seed's images."""
        return ProfileRecipe(data=self.settings.data, model=self.settings.model, points=points, t=t, **settings)

    def _segments(self) -> Roles:
        s, seed, at = self.settings, self.seed, self.floors
        early, late = s.floors[-2:]
        t = s.t_segment
        roles: Roles = {
            f"R/{seed}/segment/{a}-{b}": self.profile(at["R", a], at["R", b], t=t) for a, b in combinations(s.floors, 2)
        }
        for arm in ("K", "S"):
            roles[f"{arm}/{seed}/segment/{early}-{late}"] = self.profile(
                at[arm, early], at[arm, late], t=t, splits=("train",)
            )
        longer = self._snapshot(("R", "longer"), s.self_epochs)
        roles[f"R/{seed}/self"] = self.profile(at["R", late], longer, t=s.t_matrix, splits=("train",))
        if ("R'", late) in at:
            roles[f"R'/{seed}/segment"] = self.profile(at["R", late], at["R'", late], t=t, splits=("train",))
        return roles

    def _curves(self) -> Roles:
        s, roles = self.settings, Roles()
        for a, b in combinations(s.floors, 2):
            ends = {"a": self.floors["R", a], "b": self.floors["R", b]}
            curve = ConnectRecipe(
                data=s.data, model=s.model, **ends, epochs=s.curve_epochs, batch_size=s.batch_size, augment=s.augment,
                optimizer=s.curve, schedule=s.curve_schedule, precision=s.precision, seed=self.seed,
            )  # fmt: skip
            points = (ends["a"], Bend(run=run_id(curve)), ends["b"])
            roles[f"R/{self.seed}/curve/{a}-{b}"] = curve
            roles[f"R/{self.seed}/along/{a}-{b}"] = self.profile(*points, t=s.t_curve, curve="polychain")
        return roles

    def _predictions(self) -> Roles:
        s = self.settings
        roles = Roles()
        for arm in dict.fromkeys(arm for arm, _ in self.floors):
            points: dict[str, PointRef] = {
                f"{floor}": ref for (other, floor), ref in self.floors.items() if other == arm
            }
            if arm in "RKS":
                points["average"] = Average(of=tuple(self.floors[arm, floor] for floor in s.floors[-2:]))
            roles[f"{arm}/{self.seed}/predict"] = PredictRecipe(data=s.data, model=s.model, points=points)
        return roles

    def _plane(self) -> Roles:
        s = self.settings
        if not (self.first or s.planes == "all"):
            return {}
        early, late = s.floors[-2:]
        curve = self._curves()[f"R/{self.seed}/curve/{early}-{late}"]
        run = run_id(self.trunks["R", "train"])
        snapshots = self.trunks["R", "train"].snapshots
        marks: dict[str, PointRef] = {
            f"{epoch}": Snapshot(run=run, step=s.steps(int(epoch))) for epoch in snapshots if int(epoch) >= s.floors[0]
        }
        points = (self.floors["R", early], Bend(run=run_id(curve)), self.floors["R", late])
        surface = SurfaceRecipe(data=s.data, model=s.model, points=points, marks=marks, grid=s.grid)
        return {f"R/{self.seed}/plane": surface}


def between_seeds(arms: list[Arms]) -> Roles:
    """Segments and similarity between the floors of every two seeds, and the matrix of barriers over all of them.

    Losses are read on the first seed's images of each pair: a barrier between seeds is one number.
    """
    roles: Roles = {}
    s = arms[0].settings
    late = s.floors[-1]
    for a, b in combinations(arms, 2):
        ends = (a.floors["R", late], b.floors["R", late])
        roles[f"I/{a.seed}-{b.seed}/segment"] = a.profile(*ends, t=s.t_segment, splits=("train",))
        roles |= comparisons.between(a.settings, (a.seed, a.floors), (b.seed, b.floors))
    if len(arms) > 1:
        points: dict[str, PointRef] = {
            f"{floor} seed {own.seed}": own.floors["R", floor] for own in arms for floor in s.floors[-2:]
        }
        roles["I/matrix"] = BarriersRecipe(data=s.data, model=s.model, points=points, t=s.t_matrix, splits=("train",))
    return roles


def _upto(epochs: tuple[int, ...], last: int) -> tuple[int, ...]:
    return tuple(epoch for epoch in epochs if epoch <= last)


def _rows(s: Settings) -> tuple[tuple[str, str, str], ...]:
    d, o = s.data, s.optimizer
    size = f", {d.resolution}x{d.resolution} pixels" if d.resolution else ""
    options = ", ".join(f"{name} {value}" for name, value in s.model.options.items())
    by_design = "by design of the arm"
    return (
        ("data", f"{d.name}, {d.n_train} training images a seed{size}", s.chosen),
        (
            "parts",
            f"validation {d.n_validation}, statistics {d.n_statistics}, training loss read on {d.n_read}",
            "fixed",
        ),
        ("network", f"{s.model.name}, {options}", s.chosen),
        ("optimizer", f"SGD, momentum {o.momentum}, largest LR {o.lr}, weight decay {o.weight_decay}", s.chosen),
        ("batch", f"{s.batch_size}, {'crop and flip' if s.augment else 'no augmentation'}, {s.precision}", s.chosen),
        ("R", f"cosine cycles of {_cycle(s)} to LR {s.final * o.lr:g}; floors {s.floors}", s.chosen),
        (
            "K",
            f"constant LR {(1 + s.final) / 2 * o.lr:g}; branches cooled for {s.cool} epochs to each floor",
            by_design,
        ),
        ("S", f"LR x {s.drop} at {', '.join(map(str, s.drops))}; branches cooled for {s.cool} epochs", by_design),
        ("curves", f"one bend, {s.curve_epochs} epochs, largest LR {s.curve.lr}", "fixed; they decide nothing"),
        (
            "similarity",
            f"{' and '.join(s.layers)} on {_tested(s)}; CCA along {s.directions} directions",
            "fixed; it decides nothing",
        ),
    )


def _cycle(s: Settings) -> str:
    rest = f", {s.rest} epoch longer each" if s.rest else ""
    return f"{s.cycle} epochs x {s.mult}^i{rest}{', set once per epoch,' if s.per_epoch else ''}"


def _tested(s: Settings) -> str:
    return f"the first {s.data.n_test} test images" if s.data.n_test else "all test images"

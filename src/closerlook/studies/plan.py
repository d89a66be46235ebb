"""What every study gives: a plan (recipes by role), and the way from stored numbers to a verdict."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from closerlook.errors import UsageError
from closerlook.models import is_target, load_target
from closerlook.report import Figure, Table
from closerlook.runs.identity import source_hash
from closerlook.runs.recipe import DataSpec, Recipe
from closerlook.runs.store import RunFolder, Store

Scale = Literal["smoke", "small", "standard", "paper", "author-code"]
S = TypeVar("S", bound=Any)


def at_scale(
    scales: Mapping[str, S], scale: str, seeds: Iterable[int] | None, data: str | None
) -> tuple[S, tuple[int, ...]]:
    """The settings of a scale, on its own data or others, and the seeds: its own or others.

    Raises
    ------
    UsageError
        An unknown scale, or no seed.
    """
    if scale not in scales:
        raise UsageError(f"no scale {scale!r}; choose one of {', '.join(scales)}")
    settings = scales[scale]
    if data is not None and data != settings.data.name:
        settings = settings.model_copy(update={"data": _other(settings.data, data)})
    chosen = tuple(settings.seeds if seeds is None else seeds)
    if not chosen:
        raise UsageError("a study needs at least one seed")
    return settings, chosen


def _other(spec: DataSpec, name: str) -> DataSpec:
    source = source_hash(load_target(name)) if is_target(name) else None
    return spec.model_copy(update={"name": name, "resolution": None, "source": source})


@dataclass(frozen=True)
class StudyPlan:
    """The steps of a study.

    `roles` names every recipe by what it is to the study, such as ``"R/100/train"``; `settings` are rows of
    name, value and how it was chosen; `setting` is ``"demonstration"`` when they were chosen because an effect
    shows, ``"tuned"`` when by the baseline's validation accuracy on other seeds. `data` is the data set when it is
    not the scale's own.
    """

    name: str
    scale: Scale
    seeds: tuple[int, ...]
    rule: str
    setting: Literal["tuned", "demonstration"]
    roles: Mapping[str, Recipe]
    settings: tuple[tuple[str, str, str], ...] = ()
    about: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    data: str | None = None

    @property
    def recipes(self) -> list[Recipe]:
        """The recipes, each run once however many roles it has."""
        return list(self.roles.values())

    @property
    def command(self) -> str:
        """What to type to get the same numbers again."""
        seeds = ",".join(map(str, self.seeds))
        other = "" if self.data is None else f" --data {self.data}"
        return f"closerlook study {self.name} --scale {self.scale} --seeds {seeds}{other}"


@dataclass(frozen=True)
class Results:
    """The stored numbers of a study, by role; a missing one is None."""

    plan: StudyPlan
    store: Store

    def folder(self, role: str) -> RunFolder:
        """The run folder of a role."""
        return self.store.folder(self.plan.roles[role])

    def has(self, role: str) -> bool:
        """Whether the role exists and its run left numbers (no diverged run before it)."""
        return role in self.plan.roles and not (self.folder(role).path / "results" / "missing.json").exists()


@dataclass(frozen=True)
class Study:
    """A study by its functions: `plan` makes the graph, the others read what it left.

    `table` gives the rows arm, seed, quantity, value that the plan's rule judges, `figures` and `tables` fill the
    report, `notes` stand at its end.
    """

    plan: Callable[..., StudyPlan]
    question: str
    table: Callable[[Results], list[dict[str, Any]]]
    figures: Callable[[Results], tuple[Figure, ...]]
    tables: Callable[[Results], tuple[Table, ...]]
    notes: tuple[str, ...]

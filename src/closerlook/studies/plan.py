"""What every study gives: a plan (recipes by role), and the way from stored numbers to a verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from closerlook.evidence import Verdict
from closerlook.report import Figure, Table
from closerlook.runs.recipe import Recipe
from closerlook.runs.store import RunFolder, Store

Scale = Literal["smoke", "small", "standard", "paper", "author-code"]


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

    `judge` applies the plan's rule, `table` is what it judged as CSV, `figures` and `tables` fill the report, `notes`
    stand at its end.
    """

    plan: Callable[..., StudyPlan]
    question: str
    judge: Callable[[Results], Verdict]
    table: Callable[[Results], str]
    figures: Callable[[Results], tuple[Figure, ...]]
    tables: Callable[[Results], tuple[Table, ...]]
    notes: tuple[str, ...]

"""The stored verdicts of one study in several set-ups: on other data, with another network, on another machine."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from closerlook import files
from closerlook.errors import StoreError, UsageError
from closerlook.figures.style import letter
from closerlook.report.words import flat
from closerlook.runs.store import Store
from closerlook.studies import STUDIES

_FEW = "numbers only"  # too few seeds for a verdict
_SETUP = ("data", "network", "teacher", "students")  # what makes another set-up: data and architecture
_NAMING = (*_SETUP, "scale", "processor", "seeds")  # the first of these that differs names the set-ups


@dataclass(frozen=True)
class Setup:
    """One study in one set-up, as its folder tells it; `settings` are values by name, how it was set and where it ran.

    What was not stored by the version that made it is not there.
    """

    folder: Path
    study: str
    settings: Mapping[str, Any]
    verdict: Mapping[str, Any]

    @property
    def judged_by(self) -> str:
        """The rule and its version."""
        return f"{self.verdict['rule']}, version {self.verdict['version']}"


def read_setup(folder: Path) -> Setup:
    """The set-up of a study's folder; its runs need not be there.

    Raises
    ------
    StoreError
        Its plan or its verdict is damaged, or the study was not finished.
    """
    plan, verdict = files.read_json(folder / "plan.json"), files.read_json(folder / "verdict.json")
    try:
        if plan["study"] not in STUDIES:
            raise StoreError(f"{folder} holds a study {plan['study']!r}, which this version does not have")
        asked = {
            "folder": folder, "data": plan["data"] or "the scale's own", "scale": plan["scale"], "seeds": plan["seeds"],
            "rule": f"{verdict['rule']}, version {verdict['version']}", "setting": verdict["setting"],
        }  # fmt: skip
        chosen = {name: value for name, value, _ in plan.get("settings") or _settings(plan)}
        where = {name: value for name, value in flat(_environment(folder, plan["runs"])) if value != []}
        return Setup(folder, plan["study"], {**asked, **chosen, **where}, verdict)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"the plan or verdict of {folder} is damaged; closerlook report {folder} makes it anew"
        ) from error


def _settings(plan: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """Those of this version, for a folder of one that did not store them."""
    return STUDIES[plan["study"]].plan(plan["scale"], tuple(plan["seeds"]), plan["data"]).settings


def _environment(folder: Path, runs: Mapping[str, str]) -> Mapping[str, Any]:
    if (folder / "environment.json").exists():
        return dict(files.read_json(folder / "environment.json"))
    return Store(folder.parent).folder(next(iter(runs.values()), "")).made_in() or {}


def together(setups: Sequence[Setup]) -> dict[str, Setup]:
    """Set-ups of one study by short names: a letter, and what tells them apart.

    Raises
    ------
    UsageError
        They are of different studies, or were judged by different rules or versions of one.
    """
    for what, told in (("studies", [each.study for each in setups]), ("rules", [each.judged_by for each in setups])):
        if len(set(told)) > 1:
            folders = "; ".join(f"{each.folder}: {one}" for each, one in zip(setups, told, strict=True))
            raise UsageError(
                f"verdicts of different {what} answer different questions and are not compared ({folders}); "
                "closerlook report FOLDER judges a study anew by the rule of this version"
            )
    names = differing(setups)
    by = next((name for name in _NAMING if name in names), "")
    return {f"{letter(index)}{_short(each, by)}": each for index, each in enumerate(setups)}


def differing(setups: Sequence[Setup]) -> list[str]:
    """Names of the settings that are not the same in all set-ups, in their order."""
    names = dict.fromkeys(name for each in setups for name in each.settings)
    return [name for name in names if any(each.settings.get(name) != setups[0].settings.get(name) for each in setups)]


def answers(setups: Mapping[str, Setup]) -> dict[str, str]:
    """Verdicts by data and architecture: of those that share both, one verdict, and "not decided" where they differ.

    Another machine, scale or choice of seeds makes no other set-up, so that no result counts twice. Numbers only, for
    too few seeds, say nothing beside a verdict.
    """
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for name, each in setups.items():
        kind = tuple(_head(each.settings.get(what)) for what in _SETUP)
        found.setdefault(kind, {})[name] = each.verdict["answer"]
    return {" and ".join(of): _one(of.values()) for of in found.values()}


def _one(told: Iterable[str]) -> str:
    judged = set(told) - {_FEW}
    return _FEW if not judged else judged.pop() if len(judged) == 1 else "not decided"


def _short(setup: Setup, by: str) -> str:
    """What tells a set-up apart, in a word or two."""
    told = "-".join(map(str, setup.settings[by])) if by == "seeds" else _head(setup.settings.get(by))
    return f": {told}" if told else ""


def _head(value: Any) -> str:
    """A setting up to its first comma: the name of a data set or a network without its numbers."""
    return "" if value is None else re.split("[,;]", str(value))[0]

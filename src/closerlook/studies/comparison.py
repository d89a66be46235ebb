"""Reports of one study side by side: parts, controls and settings of every set-up, and what holds across them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from closerlook.evidence import across_setups
from closerlook.figures import setups as drawn_setups
from closerlook.figures import to_svg
from closerlook.report import Figure, Report, Table
from closerlook.report.words import parts_of, shown
from closerlook.studies import STUDIES
from closerlook.studies.setups import Setup, answers, differing, read_setup, together


def compared(folders: Sequence[Path]) -> Report:
    """The report that shows the stored verdicts of one study in several set-ups.

    Raises
    ------
    UsageError
        The folders are of different studies, or were judged by different rules.
    StoreError
        A folder is damaged, or its study was not finished.
    """
    setups = together([read_setup(folder) for folder in folders])
    study = next(iter(setups.values())).study
    return Report(
        title=f"{study.capitalize()}: {len(setups)} reports side by side",
        question=STUDIES[study].question,
        verdict=_general(setups),
        figures=(_figure(setups),),
        tables=(_verdicts(setups), _parts(setups), _controls(setups), *_settings(setups)),
        notes=tuple(f"{name}. {each.verdict['words']}" for name, each in setups.items()),
        command=command_of(folders),
    )


def _general(setups: Mapping[str, Setup]) -> dict[str, Any]:
    """The verdict across set-ups as a report takes it."""
    first = next(iter(setups.values())).verdict
    across = across_setups(answers(setups))
    words = across.words
    if not all(name in words for name in setups):
        told = "; ".join(f"{name}, {each.verdict['answer']}" for name, each in setups.items())
        words = f"{words} {told}."
    return {name: first[name] for name in ("claim", "rule", "version")} | {"answer": across.answer, "words": words}


def _figure(setups: Mapping[str, Setup]) -> Figure:
    parts = {name: {part["name"]: part for part in parts_of(each.verdict)} for name, each in setups.items()}
    names = dict.fromkeys(part for of in parts.values() for part in of)
    rows = {part: {name: of[part] for name, of in parts.items() if part in of} for part in names}
    title = "Parts of the verdict in every set-up"
    caption = (
        "A row for each set-up: circles are seeds, the diamond their mean; the thick bar is the interval that gives "
        "the answer (▲ yes, ▼ no, ◇ open), the thin one a wider interval. Dashed line: margin. Grey line: zero. "
        "Parts of one unit share their range."
    )
    return Figure("setups", title, caption, to_svg(drawn_setups(rows), title=title, name="setups"))


def _verdicts(setups: Mapping[str, Setup]) -> Table:
    rows = tuple(
        (name, each.verdict["answer"], len(each.verdict["seeds"]), bool(each.verdict["provisional"]),
         each.verdict["setting"])
        for name, each in setups.items()
    )  # fmt: skip
    return Table("verdicts", "Verdict of every set-up", ("set-up", "verdict", "seeds", "provisional", "setting"), rows)


def _parts(setups: Mapping[str, Setup]) -> Table:
    found = {name: {part["name"]: part for part in parts_of(each.verdict)} for name, each in setups.items()}
    parts = {part["name"]: part for of in found.values() for part in of.values()}
    rows = tuple(
        (name, *(_told(of[name]) if name in of else None for of in found.values()), part["margin"], part["unit"])
        for name, part in parts.items()
    )
    return Table(
        "parts", "Parts in every set-up", ("part", *setups, "margin", "unit"), rows,
        "Answer, mean over seeds, and its 90 % interval.",
    )  # fmt: skip


def _told(part: Mapping[str, Any]) -> str:
    ends = "" if part["low"] is None else f" ({shown(part['low'], 3)} to {shown(part['high'], 3)})"
    return f"{part['answer']}: {shown(part['effect'], 3)}{ends}"


def _controls(setups: Mapping[str, Setup]) -> Table:
    found = {name: {each["name"]: each for each in of.verdict["controls"]} for name, of in setups.items()}
    names = dict.fromkeys(control for of in found.values() for control in of)
    told = {True: "passed", False: "failed"}
    rows = tuple((name, *(told.get(of.get(name, {}).get("passed")) for of in found.values())) for name in names)
    return Table(
        "controls", "Controls in every set-up", ("control", *setups), rows or (("none", *[None] * len(setups)),)
    )


def _settings(setups: Mapping[str, Setup]) -> tuple[Table, Table]:
    """What is not the same in all set-ups, and what is."""
    each = list(setups.values())
    other = differing(each)
    same = [name for name in each[0].settings if name not in other]
    rows = tuple((name, *(one.settings.get(name) for one in each)) for name in other)
    return (
        Table("differing", "What differs between the set-ups", ("setting", *setups), rows),
        Table("same", "What is the same in all", ("setting", "value"), tuple((n, each[0].settings[n]) for n in same)),
    )


def command_of(folders: Sequence[Path]) -> str:
    """What to type to compare the folders again."""
    return f"closerlook report {' '.join(map(str, folders))} -o comparison.html"

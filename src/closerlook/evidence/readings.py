"""From table to numbers: the parts of a rule over the seeds, its controls, and what is only shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from closerlook.evidence.admission import Admitted
from closerlook.evidence.effects import Effect, paired_effect
from closerlook.evidence.paired import FEWEST, SETTLED, TIE
from closerlook.evidence.questions import Control, Illustration, Part
from closerlook.evidence.rule import Rule
from closerlook.evidence.table import Table


@dataclass(frozen=True)
class PartResult:
    """A part with its effect over seeds, and why it had to stay open where numbers alone do not say so."""

    part: Part
    effect: Effect
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Name, question and numbers in one plain mapping."""
        part = self.part
        question = {
            "name": part.name, "quantity": part.quantity, "arm": part.arm, "baseline": part.against,
            "unit": part.unit, "contrast": part.contrast,
        }  # fmt: skip
        says = part.says(self.effect.answer)
        return question | self.effect.to_dict() | {"says": says, "notes": list(self.notes)}


@dataclass(frozen=True)
class Reading:
    """Values of one arm and quantity: a control that passed or failed, or (`passed` None) numbers only shown."""

    name: str
    says: str
    values: Mapping[str, float | None]
    passed: bool | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {"name": self.name, "says": self.says, "values": dict(self.values), "passed": self.passed}


def read_part(
    part: Part, table: Table, seeds: Sequence[str], levels: Sequence[float], chance: float | None = None
) -> PartResult:
    """Effect of one part over all seeds of the study.

    A diverged run (a row without a value) counts as `chance` where accuracy is judged. That outcome is all or nothing,
    so the part then needs five seeds. Any other gap leaves the part open.
    """
    instead = chance if part.quantity == "accuracy" else None
    outcomes = [_outcomes(table.column(arm, part.quantity), seeds, instead) for arm in part.arms]
    gaps = _gaps(part, table, seeds)
    values = {seed: _difference(*(column[seed] for column in outcomes)) for seed in seeds}
    diverged = instead is not None and any(row for _, row in gaps)
    needs = SETTLED if diverged or part.all_or_nothing else FEWEST
    effect = paired_effect(values, part.margin, levels, needs)
    notes = [f"{part.name}: {where} {_consequence(part, row, instead)}" for where, row in gaps]
    if why := _all_or_nothing(part, effect, diverged):
        notes.append(f"{part.name}: {why}, and an outcome that is all or nothing needs {SETTLED} seeds; open")
    return PartResult(part, effect, tuple(notes))


def admitted(result: PartResult, admission: Admitted | None) -> PartResult:
    """The part as it may answer: left out with an arm that is left out, open where that is not known."""
    standing = "takes part" if admission is None else admission.standing(result.part.arms)
    if standing == "left out":
        return PartResult(result.part, result.effect.answering("left out"), ())
    return result if standing == "takes part" else replace(result, effect=result.effect.answering("open"))


def _all_or_nothing(part: Part, effect: Effect, diverged: bool) -> str:
    """Why these few seeds count as an outcome that is all or nothing; empty where they do not."""
    equal = effect.sd is not None and effect.sd <= TIE
    if effect.n >= SETTLED or not (diverged or equal or part.all_or_nothing):
        return ""
    return "a run diverged" if diverged else "all differences are equal" if equal else "a run trains or fails"


def read_control(control: Control, table: Table, seeds: Sequence[str]) -> Reading:
    """A control is passed if every value lies within its limits and none is missing."""
    column = table.column(control.arm, control.quantity)
    asked = table.seeds([(control.arm, control.quantity)]) if not control.per_seed else seeds
    values = _outcomes(column, asked)
    passed = all(value is not None and control.above < value < control.below for value in values.values())
    return Reading(control.name, control.says, values, passed and bool(values))


def read_illustration(shown: Illustration, table: Table) -> list[Reading]:
    """Values of a quantity that never enters the verdict, arm by arm; one that stands for many arms names each."""
    keys = sorted(key for key in table.values if key[1] == shown.quantity and shown.shows(key[0]))
    return [
        Reading(
            shown.name if arm == shown.arm else arm,
            shown.says if arm == shown.arm else f"{shown.says}: {arm.removeprefix(shown.arm)}",
            _outcomes(table.column(arm, quantity), table.seeds([(arm, quantity)])), None,
        )
        for arm, quantity in keys
    ]  # fmt: skip


def unused(table: Table, rule: Rule) -> list[str]:
    """Say which rows the rule does not look at, so that a misspelt name does not pass unseen."""
    others = sorted(key for key in table.values if not rule.looks_at(*key))
    return [f"not used by this rule: {quantity} of arm {arm}" for arm, quantity in others]


def _outcomes(
    column: Mapping[str, float], seeds: Sequence[str], instead: float | None = None
) -> dict[str, float | None]:
    """Value per seed; a row without a value becomes `instead`, a seed without a row None."""
    return {seed: _known(column[seed], instead) if seed in column else None for seed in seeds}


def _known(value: float, instead: float | None) -> float | None:
    return instead if math.isnan(value) else value


def _difference(arm: float | None, *baselines: float | None) -> float | None:
    """Value of the arm less the mean of its baselines; None where one of them is missing."""
    known = [value for value in baselines if value is not None]
    if arm is None or len(known) < len(baselines):
        return None
    return arm - sum(known) / len(known) if known else arm


def _gaps(part: Part, table: Table, seeds: Sequence[str]) -> list[tuple[str, bool]]:
    """Where a value is missing, and whether a row stands there without one.

    Where runs are expected to fail, the seeds of an arm are named together.
    """
    found = []
    for arm in part.arms:
        column = table.column(arm, part.quantity)
        gaps = [(seed, seed in column) for seed in seeds if math.isnan(column.get(seed, math.nan))]
        if part.all_or_nothing:
            alike = [[seed for seed, row in gaps if row == kind] for kind in (True, False)]
            gaps = [(_together(named), row) for named, row in zip(alike, (True, False), strict=True) if named]
        found += [(f"arm {arm}, seed {seed}", row) for seed, row in gaps]
    return found


def _together(seeds: Sequence[str]) -> str:
    return seeds[0] + (f" (also {', '.join(seeds[1:])})" if seeds[1:] else "")


def _consequence(part: Part, row: bool, instead: float | None) -> str:
    if row and instead is not None:
        return f"has no {part.quantity} (diverged); it counts as chance, {instead:g}"
    repair = "; if the run diverged, give the chance level" if part.quantity == "accuracy" and row else ""
    return f"has no {'value' if row else 'row'} of {part.quantity}; open{repair}"

"""Which arms take part in a verdict: those that come close enough to a baseline in every seed."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from closerlook.errors import UsageError
from closerlook.evidence.paired import TIE
from closerlook.evidence.table import Table

Standing = Literal["takes part", "left out", "not known"]


@dataclass(frozen=True)
class Admission:
    """Which of `arms` are judged at all: those whose error is at most `margin` above that of `baseline` in every seed.

    One seed above is enough to leave an arm out, and so is one that diverged: what is read at a network that did not
    train, if only in one seed, would enter the mean over seeds. A part with such an arm is shown and takes no part in
    either verdict; the levels of the others stay as they are. With fewer than `least` of the parts `among` left nothing
    is decided. Where an error is missing it is not known whether the arm may take part, and its parts are open.

    Attributes
    ----------
    quantity
        The error that is compared, a fraction.
    baseline
        Arm that it is compared with, within the seed.
    margin
        Largest excess with which an arm takes part.
    arms
        Arms that have to be admitted.
    among, least
        Parts of which so many must be left.
    otherwise
        What it means that an arm is left out: "did not train".

    Raises
    ------
    UsageError
        The margin is not finite, or more parts must be left than there are.

    Examples
    --------
    >>> trained = Admission("train_error", "G", 0.05, arms=("A", "B"), among=("D(A)", "D(B)"), least=1)
    >>> trained.enough({"D(A)"}), trained.enough({"D(A)", "D(B)"})
    (True, False)
    """

    quantity: str
    baseline: str
    margin: float
    arms: tuple[str, ...]
    among: tuple[str, ...]
    least: int
    otherwise: str = "was not admitted"

    def __post_init__(self) -> None:
        """Refuse an admission that could not be computed, or never be passed."""
        if not math.isfinite(self.margin) or not 0 < self.least <= len(set(self.among)):
            raise UsageError(
                f"an admission at margin {self.margin} with {self.least} of {len(set(self.among))} parts left is none; "
                "give a finite margin, and ask for one part or more of those that are named"
            )

    def reads(self, arm: str, quantity: str) -> bool:
        """Tell whether this quantity of this arm is looked at."""
        return quantity == self.quantity and arm in (self.baseline, *self.arms)

    def enough(self, left_out: Iterable[str]) -> bool:
        """Tell whether enough parts are left without these."""
        return len(set(self.among) - set(left_out)) >= self.least


@dataclass(frozen=True)
class Entrant:
    """An arm that asks for admission: its error less the baseline's in every seed (None: not known), its standing."""

    arm: str
    values: Mapping[str, float | None]
    standing: Standing

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {"arm": self.arm, "values": dict(self.values), "standing": self.standing}


@dataclass(frozen=True)
class Admitted:
    """How an admission went, arm by arm."""

    admission: Admission
    entrants: tuple[Entrant, ...]

    def standing(self, arms: Sequence[str]) -> Standing:
        """Standing of a part that needs all of these arms: the worst of theirs."""
        found = {each.standing for each in self.entrants if each.arm in arms}
        return "left out" if "left out" in found else "not known" if "not known" in found else "takes part"

    @property
    def left_out(self) -> tuple[str, ...]:
        """Arms that take no part."""
        return tuple(each.arm for each in self.entrants if each.standing == "left out")

    def notes(self) -> Iterator[str]:
        """One line for every arm that does not take part, with its numbers."""
        asked = self.admission
        what = f"{asked.quantity} less that of {asked.baseline}, at most {asked.margin:g} in every seed"
        for each in self.entrants:
            values = ", ".join(f"{seed}: {_number(value)}" for seed, value in each.values.items())
            if each.standing == "left out":
                yield f"{each.arm} {asked.otherwise} and is left out ({what}: {values})"
            elif each.standing == "not known":
                yield f"whether {each.arm} takes part is not known ({what}: {values}); its parts are open"

    def to_dict(self) -> dict[str, Any]:
        """What was asked, and every arm with its numbers."""
        asked = self.admission
        facts = {name: getattr(asked, name) for name in ("quantity", "baseline", "margin", "least", "otherwise")}
        return facts | {"among": list(asked.among), "arms": [each.to_dict() for each in self.entrants]}


def admit(admission: Admission, table: Table, seeds: Sequence[str], chance: float | None = None) -> Admitted:
    """Read which arms take part; a diverged run (a row without a value) has the error of guessing and is left out."""
    baseline = table.column(admission.baseline, admission.quantity)
    guessing = math.nan if chance is None else 1 - chance
    entrants = []
    for arm in admission.arms:
        column = table.column(arm, admission.quantity)
        diverged = any(math.isnan(column.get(seed, 0.0)) for seed in seeds)
        values = {seed: _or(column.get(seed), guessing) - _or(baseline.get(seed), guessing) for seed in seeds}
        standing = _standing(values.values(), admission.margin, diverged)
        known = {seed: None if math.isnan(value) else value for seed, value in values.items()}
        entrants.append(Entrant(arm, known, standing))
    return Admitted(admission, tuple(entrants))


def _or(value: float | None, guessing: float) -> float:
    """A value; the error of guessing where a run diverged; NaN where there is no row."""
    return math.nan if value is None else guessing if math.isnan(value) else value


def _standing(values: Iterable[float], margin: float, diverged: bool) -> Standing:
    found = list(values)
    if diverged or any(value > margin + TIE for value in found):
        return "left out"
    return "not known" if any(map(math.isnan, found)) else "takes part"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"

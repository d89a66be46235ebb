"""A rule as data: its parts, its controls, its conditions, and the small function that decides."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from closerlook.errors import UsageError
from closerlook.evidence.admission import Admission
from closerlook.evidence.agreed import Agreed, Agreement
from closerlook.evidence.conditions import Answers, Condition, Gate, Precondition, Remark, all_of
from closerlook.evidence.paired import LEVEL, Answer
from closerlook.evidence.questions import Control, Illustration, Part

Outcome = Literal["supported", "contradicted", "not decided", "numbers only"]


class Decision(NamedTuple):
    """Outcome of a rule: the verdict, the answers that gave it, the gate if it was taken, and what stands beside it.

    `unmet` are the preconditions that are not yes; nothing else is looked at then, as where `too_few` parts are left.
    """

    answer: Outcome
    holding: tuple[tuple[str, Answer], ...]
    gate: Gate | None
    unmet: tuple[Precondition, ...] = ()
    remarks: tuple[str, ...] = ()
    too_few: bool = False

    def asked(self, rule: "Rule") -> list[str]:
        """Questions that could have decided on the way that was taken, in the rule's order."""
        way = self.gate or rule
        names = {name for condition in (way.supported, way.contradicted) for name, _ in condition.terms}
        return [each.name for each in rule.questions() if each.name in names]


@dataclass(frozen=True)
class Rule:
    """A decision rule as data: claim, parts, conditions for either verdict, controls, and what is only shown.

    Preconditions come before the conditions, and each must be yes. Conditions name parts, or what several parts agree
    on (`agreed`). Parts that no condition hangs on are read and shown beside the verdict. An `admission` leaves out
    parts with arms that are not to be judged.

    Raises
    ------
    UsageError
        Two parts share a name, a margin is not finite, or a condition is empty or names an unknown part.

    Examples
    --------
    >>> gain = Part("gain", quantity="accuracy", arm="warm", baseline="cold", margin=0.01)
    >>> rule = Rule("warm", 1, "warming up helps", (gain,), all_of({"gain": "yes"}), all_of({"gain": "no"}))
    >>> rule.decide({("gain", 0.9): "yes"}).answer
    'supported'
    """

    name: str
    version: int
    claim: str
    parts: tuple[Part, ...]
    supported: Condition
    contradicted: Condition
    controls: tuple[Control, ...] = ()
    illustrations: tuple[Illustration, ...] = ()
    gate: Gate | None = None
    preconditions: tuple[Precondition, ...] = ()
    remarks: tuple[Remark, ...] = ()
    agreed: tuple[Agreed, ...] = ()
    admission: Admission | None = None

    def __post_init__(self) -> None:
        """Refuse a rule that could not be computed."""
        names = [each.name for each in self.questions()]
        asked = {part for condition in self.conditions() for part, _ in condition.terms}
        asked |= {part for each in self.agreed for part in each.parts}
        asked |= set(self.admission.among if self.admission else ())
        if len(set(names)) < len(names) or not asked <= set(names):
            raise UsageError(f"rule {self.name} has parts {names} and asks for {sorted(asked)}; name each part once")
        if not all(math.isfinite(part.margin) for part in self.parts):
            raise UsageError(f"rule {self.name} has a margin that is not finite; give each part a number")
        if not all(condition.terms for condition in self.conditions()):
            raise UsageError(f"rule {self.name} has an empty condition; name at least one part in each")

    def questions(self) -> list[Part | Agreed]:
        """All that a condition may name, in the rule's order: an agreement stands behind the last of its parts."""
        listed: list[Part | Agreed] = []
        for part in self.parts:
            listed += [part, *(each for each in self.agreed if each.parts[-1] == part.name)]
        return listed

    def says(self, name: str, answer: Answer) -> str:
        """What an answer to one of the questions means."""
        return next(each for each in self.questions() if each.name == name).says(answer)

    def deciding(self) -> Iterator[Condition]:
        """Every condition that a verdict hangs on: either verdict's, those of the gate, the preconditions."""
        yield from (self.supported, self.contradicted)
        if self.gate:
            yield from (all_of({self.gate.part: self.gate.answer}), self.gate.supported, self.gate.contradicted)
        yield from (all_of({each.part: "yes"}) for each in self.preconditions)

    def conditions(self) -> Iterator[Condition]:
        """Every condition of the rule, those of its remarks last."""
        yield from self.deciding()
        yield from (remark.when for remark in self.remarks)

    def beside(self) -> list[str]:
        """Parts that are read and shown and that no verdict hangs on."""
        asked = {name for condition in self.deciding() for name, _ in condition.terms}
        asked |= {part for each in self.agreed if each.name in asked for part in each.parts}
        return [part.name for part in self.parts if part.name not in asked]

    def compared(self) -> list[tuple[str, str]]:
        """Every (arm, quantity) that a part compares."""
        return [(arm, part.quantity) for part in self.parts for arm in part.arms]

    def looks_at(self, arm: str, quantity: str) -> bool:
        """Tell whether a part, a control, an illustration or the admission reads this quantity of this arm."""
        read = self.compared() + [(control.arm, control.quantity) for control in self.controls]
        shown = (each.quantity == quantity and each.shows(arm) for each in self.illustrations)
        admits = self.admission is not None and self.admission.reads(arm, quantity)
        return (arm, quantity) in read or any(shown) or admits

    def levels(self, part: str) -> tuple[float, ...]:
        """Levels at which a part, or what several agree on, is read, 90 % first."""
        names = {part, *(each.name for each in self.agreed if part in each.parts)}
        asked = {condition.level for condition in self.conditions() for name, _ in condition.terms if name in names}
        return tuple(sorted(asked | {LEVEL}))

    def agree(self, answers: Answers) -> list[Agreement]:
        """What the parts of each agreement say together, at every level that is asked for."""
        found = []
        for each in self.agreed:
            narrow = [answers[part, LEVEL] for part in each.parts]
            levels = self.levels(each.name)
            told = {level: each.answer([answers[part, level] for part in each.parts], narrow) for level in levels}
            found.append(Agreement(each, told))
        return found

    def complete(self, answers: Answers) -> Answers:
        """The answers of the parts, and with them those of the agreements."""
        agreements = self.agree(answers)
        together = {(each.agreed.name, level): told for each in agreements for level, told in each.answers.items()}
        return {**answers, **together}

    def decide(self, answers: Answers) -> Decision:
        """Verdict for the answers of the parts at their levels; controls and the number of seeds come before it."""
        answers = self.complete(answers)
        left_out = [name for (name, _), answer in answers.items() if answer == "left out"]
        if self.admission and not self.admission.enough(left_out):
            return Decision("not decided", (), None, too_few=True)
        if unmet := tuple(each for each in self.preconditions if answers[each.part, LEVEL] != "yes"):
            return Decision("not decided", (), None, unmet)
        remarks = tuple(each.words for each in self.remarks if each.when.holding(answers))
        gate = self.gate if self.gate and answers[self.gate.part, LEVEL] == self.gate.answer else None
        way = gate or self
        outcomes: tuple[tuple[Outcome, Condition], ...] = (
            ("contradicted", way.contradicted),
            ("supported", way.supported),
        )
        for verdict, condition in outcomes:
            if holding := condition.holding(answers):
                return Decision(verdict, holding, gate, remarks=remarks)
        return Decision("not decided", (), gate, remarks=remarks)

"""What a verdict hangs on: the questions whose answers gave it, or those that could have."""

from dataclasses import dataclass
from typing import Any

from closerlook.evidence.agreed import Agreed
from closerlook.evidence.conditions import Answers
from closerlook.evidence.paired import LEVEL, Answer
from closerlook.evidence.questions import Part
from closerlook.evidence.readings import PartResult
from closerlook.evidence.rule import Rule
from closerlook.evidence.rules import find_rule
from closerlook.evidence.verdicts import Verdict


@dataclass(frozen=True)
class Ground:
    """One question that a verdict hangs on: its answer at 90 %, what that means, and the parts that read it."""

    name: str
    answer: Answer
    says: str
    parts: tuple[PartResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return vars(self) | {"parts": [part.to_dict() for part in self.parts]}


def deciding(found: Verdict, rule: str | Rule | None = None) -> tuple[Ground, ...]:
    """Questions that gave the verdict, in the rule's order; where nothing is decided, those that could have decided.

    A question that is read in several measures is one of them, with all its parts. A gate that was taken, or
    preconditions that are not met, count as what decided. With too few seeds or a failed control nothing was asked: all
    parts are given but those beside the verdict.

    Parameters
    ----------
    found
        The verdict.
    rule
        The rule that gave it, where it does not come with closerlook.

    Raises
    ------
    UsageError
        No rule has the verdict's name.

    Examples
    --------
    >>> from closerlook.evidence import Part, Rule, all_of, verdict
    >>> gain = Part("gain", quantity="accuracy", arm="warm", baseline="cold", margin=0.01)
    >>> speed = Part("speed", quantity="epochs", arm="warm", baseline="cold", margin=0.0)
    >>> rule = Rule("warm", 1, "warming up helps", (gain, speed), all_of({"gain": "yes"}), all_of({"gain": "no"}))
    >>> rows = [
    ...     {"arm": arm, "seed": seed, "quantity": quantity, "value": value + seed / 100}
    ...     for arm, value in (("warm", 0.9), ("cold", 0.8)) for seed in range(3) for quantity in ("accuracy", "epochs")
    ... ]
    >>> [ground.name for ground in deciding(verdict(rows, rule), rule)]
    ['gain']
    """
    chosen = find_rule(found.rule if rule is None else rule)
    answers = chosen.complete(
        {(each.part.name, at.level): at.answer for each in found.parts for at in each.effect.intervals}
    )
    asked = _asked(found, chosen, answers)
    return tuple(_ground(found, each, answers[each.name, LEVEL]) for each in chosen.questions() if each.name in asked)


def _asked(found: Verdict, rule: Rule, answers: Answers) -> set[str]:
    if found.answer == "numbers only" or not all(control.passed for control in found.controls):
        return {part.name for part in rule.parts} - set(rule.beside())
    decision = rule.decide(answers)
    if decision.unmet:
        return {each.part for each in decision.unmet}
    gate = {decision.gate.part} if decision.gate else set()
    return gate | ({name for name, _ in decision.holding} or set(decision.asked(rule)))


def _ground(found: Verdict, question: Part | Agreed, answer: Answer) -> Ground:
    names = question.parts if isinstance(question, Agreed) else (question.name,)
    parts = tuple(each for each in found.parts if each.part.name in names)
    return Ground(question.name, answer, question.says(answer), parts)

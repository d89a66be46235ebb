"""The parts that a verdict hangs on: those that gave it, or those that could have."""

from closerlook.evidence.readings import PartResult
from closerlook.evidence.rule import Rule
from closerlook.evidence.rules import find_rule
from closerlook.evidence.verdicts import Verdict


def deciding(found: Verdict, rule: str | Rule | None = None) -> tuple[PartResult, ...]:
    """Parts that gave the verdict, in the rule's order; where nothing is decided, those that could have decided.

    Of parts that answer one question in several measures all are given. A gate that was taken, or preconditions that
    are not met, count as what decided. With too few seeds or a failed control nothing was asked: all parts are given
    but those beside the verdict.

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
    >>> [each.part.name for each in deciding(verdict(rows, rule), rule)]
    ['gain']
    """
    chosen = find_rule(found.rule if rule is None else rule)
    names = _names(found, chosen)
    names |= {part for each in chosen.agreed if each.name in names for part in each.parts}
    return tuple(each for each in found.parts if each.part.name in names)


def _names(found: Verdict, rule: Rule) -> set[str]:
    if found.answer == "numbers only" or not all(control.passed for control in found.controls):
        return {part.name for part in rule.parts} - set(rule.beside())
    answers = {(each.part.name, at.level): at.answer for each in found.parts for at in each.effect.intervals}
    decision = rule.decide(answers)
    if decision.unmet:
        return {each.part for each in decision.unmet}
    gate = {decision.gate.part} if decision.gate else set()
    return gate | ({name for name, _ in decision.holding} or set(decision.asked(rule)))

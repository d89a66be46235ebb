"""From a table of measurements to a verdict: controls first, then the parts, then the rule."""

from collections.abc import Sequence
from typing import Any

from closerlook.errors import UsageError
from closerlook.evidence import words
from closerlook.evidence.admission import Admitted, admit
from closerlook.evidence.conditions import Answers
from closerlook.evidence.paired import FEWEST, SETTLED
from closerlook.evidence.readings import Reading, admitted, read_control, read_illustration, read_part, unused
from closerlook.evidence.rule import Outcome, Rule
from closerlook.evidence.rules import find_rule
from closerlook.evidence.table import Table, read_table
from closerlook.evidence.verdicts import Setting, Verdict


def verdict(
    table: Any, rule: str | Rule = "restarts", setting: Setting | None = None, chance: float | None = None
) -> Verdict:
    """Verdict on a claim from paired measurements over seeds, by a rule that was fixed beforehand.

    Controls come first; each part is a difference of two arms within a seed, judged by a Student t interval against
    its margin; the rule combines the answers. The text of the rules is docs/decision_rules.md.

    Parameters
    ----------
    table
        Rows with arm, seed, quantity and value: a list of mappings, a mapping of columns, a DataFrame, or the path of
        a CSV file.
    rule
        Name of a rule ("restarts", "warmup", "distillation", or the form for small runs, "-small"; "resilience") or a
        `Rule` of your own.
    setting
        "tuned" if the setting was chosen by the baseline's validation accuracy, "demonstration" if it was chosen
        because the effect shows; the sentence then says so.
    chance
        Chance level of accuracy as a fraction: what a diverged run (an accuracy row without a value) counts as. Where
        errors are compared, such a run has the error of guessing.

    Raises
    ------
    UsageError
        The table, rule, setting or chance level cannot be used; the message names cause and repair.

    Examples
    --------
    >>> from closerlook.evidence import Part, Rule, all_of
    >>> gain = Part("gain", quantity="accuracy", arm="warm", baseline="cold", margin=0.01)
    >>> rule = Rule("warm", 1, "warming up helps", (gain,), all_of({"gain": "yes"}), all_of({"gain": "no"}))
    >>> values = {"warm": (0.91, 0.93, 0.92), "cold": (0.85, 0.86, 0.87)}
    >>> rows = [
    ...     {"arm": arm, "seed": seed, "quantity": "accuracy", "value": value}
    ...     for arm, found in values.items() for seed, value in enumerate(found, start=100)
    ... ]
    >>> verdict(rows, rule, setting="tuned").words
    'Supported: warming up helps, because gain is yes; provisional with 3 seeds.'
    """
    chosen = find_rule(rule)
    _check(setting, chance)
    read = read_table(table)
    seeds = _seeds(read, chosen)
    entry = admit(chosen.admission, read, seeds, chance) if chosen.admission else None
    parts = tuple(
        admitted(read_part(part, read, seeds, chosen.levels(part.name), chance), entry) for part in chosen.parts
    )
    controls = tuple(read_control(control, read, seeds) for control in chosen.controls)
    shown = (reading for each in chosen.illustrations for reading in read_illustration(each, read))
    gaps = (note for part in parts for note in part.notes)
    answers = {(each.part.name, level.level): level.answer for each in parts for level in each.effect.intervals}
    answer, reason, remarks = _judge(chosen, len(seeds), answers, controls, entry)
    agreements = tuple(chosen.agree(answers))
    return Verdict(
        claim=chosen.claim,
        rule=chosen.name,
        version=chosen.version,
        answer=answer,
        words=words.sentence(answer, reason, setting, len(seeds)),
        provisional=len(seeds) < SETTLED,
        setting=setting,
        seeds=tuple(seeds),
        parts=parts,
        controls=controls,
        illustrations=tuple(shown),
        notes=(
            *remarks, *map(str, agreements), *words.beside(chosen), *(entry.notes() if entry else ()), *gaps,
            *unused(read, chosen),
        ),
        agreements=agreements,
        admitted=entry,
    )


def _check(setting: str | None, chance: float | None) -> None:
    if setting not in (None, "tuned", "demonstration"):
        raise UsageError(f"a setting is 'tuned' or 'demonstration', not {setting!r}; say how yours was chosen")
    if chance is not None and not 0 <= chance <= 1:
        raise UsageError(f"chance is a fraction from 0 to 1, not {chance}; with ten balanced classes it is 0.1")


def _seeds(table: Table, rule: Rule) -> list[str]:
    if seeds := table.seeds(rule.compared()):
        return seeds
    asked = ", ".join(f"{part.quantity} of arms {' and '.join(part.arms)}" for part in rule.parts)
    raise UsageError(f"the table holds nothing that rule {rule.name} compares; it compares {asked}")


def _judge(
    rule: Rule, seeds: int, answers: Answers, controls: Sequence[Reading], entry: Admitted | None
) -> tuple[Outcome, str, tuple[str, ...]]:
    """Answer, its reason, and the rule's remarks beside it."""
    if seeds < FEWEST:
        return "numbers only", words.too_few(rule, seeds), ()
    if failed := [control for control in controls if not control.passed]:
        return "not decided", words.failed_controls(failed), ()
    decision = rule.decide(answers)
    return decision.answer, words.decided(rule, decision, rule.complete(answers), entry), decision.remarks

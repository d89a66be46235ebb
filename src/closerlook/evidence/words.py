"""The one sentence that a reader of a verdict sees first."""

from collections.abc import Sequence

from closerlook.evidence.admission import Admitted
from closerlook.evidence.conditions import Answers, Precondition
from closerlook.evidence.paired import FEWEST, LEVEL, SETTLED, Answer
from closerlook.evidence.readings import Reading
from closerlook.evidence.rule import Decision, Outcome, Rule

CHOSEN = "at a setting chosen to show it"
CANNOT_TELL = "the instrument cannot tell here"
_MANY = 4  # parts that one sentence can say in full


def sentence(answer: Outcome, reason: str, setting: str | None, seeds: int) -> str:
    """Answer, reason, and what limits both: a setting chosen for its effect, fewer than five seeds."""
    limits = [CHOSEN] if setting == "demonstration" else []
    if seeds < SETTLED and answer != "numbers only":
        limits.append(f"provisional with {seeds} seeds")
    return "; ".join([f"{answer.capitalize()}: {reason}", *limits]) + "."


def too_few(rule: Rule, seeds: int) -> str:
    """Reason for numbers without a verdict."""
    counted = f"{seeds} seed" + "s" * (seeds != 1)
    return f"{counted} cannot judge whether {rule.claim}, at least {FEWEST} are needed"


def failed_controls(failed: Sequence[Reading]) -> str:
    """Reason for no verdict where a control failed."""
    return f"{CANNOT_TELL}, because the runs do not show that {' or that '.join(control.says for control in failed)}"


def decided(rule: Rule, decision: Decision, answers: Answers, entry: Admitted | None = None) -> str:
    """Reason for the rule's decision, and which arms it leaves out; `answers` are the complete ones."""
    arms = entry.left_out if entry else ()
    if entry and decision.too_few:
        asked = entry.admission
        why = f", since {_listed(arms)} {asked.otherwise}"
        return f"fewer than {asked.least} of {', '.join(asked.among)} are left{why}"
    left_out = f"; left out: {_listed(arms)}, which {entry.admission.otherwise}" if entry and arms else ""
    return _reason(rule, decision, answers) + left_out


def _reason(rule: Rule, decision: Decision, answers: Answers) -> str:
    """What was answered by the parts that gave the decision, or left it open."""
    if decision.unmet:
        return _listed([_unmet(rule, each, answers[each.part, LEVEL]) for each in decision.unmet])
    prefix = f"{decision.gate.words}; " if decision.gate else ""
    if decision.answer == "not decided":
        taking = [name for name in decision.asked(rule) if answers[name, LEVEL] != "left out"]
        return f"{prefix}these runs do not settle whether {rule.claim}, since {_undecided(rule, taking, answers)}"
    because = _listed([rule.says(name, answer) for name, answer in decision.holding])
    stance = "" if decision.answer == "supported" else "the runs speak against the claim that "
    return f"{prefix}{stance}{rule.claim}, because {because}"


def _undecided(rule: Rule, taking: Sequence[str], answers: Answers) -> str:
    """What the parts answered; of many only those that stand against the claim or are open, the rest by name."""
    needed = () if rule.supported.one_suffices else rule.supported.terms
    fitting = [name for name in taking if (name, answers[name, LEVEL]) in needed]
    others = [name for name in taking if name not in fitting]
    if not others or len(taking) <= _MANY or len(fitting) < 2:  # one name alone is no shorter than what it says
        return _listed([_answered(rule, name, answers) for name in taking])
    told = _listed([_answered(rule, name, answers) for name in others])
    return f"{told}; {_listed(fitting)} are as the claim has it"


def _unmet(rule: Rule, precondition: Precondition, answer: Answer) -> str:
    """What a precondition that is not yes means; one that is open leaves room for the other answer."""
    return f"{'perhaps ' * (answer == 'open')}{precondition.otherwise}, since {rule.says(precondition.part, answer)}"


def _answered(rule: Rule, name: str, answers: Answers) -> str:
    """Answer of a part at 90 %; one that a single part would have to give at a higher level says so."""
    answer = answers[name, LEVEL]
    deciding = (rule.supported, rule.contradicted)
    asked = [condition.level for condition in deciding if (name, answer) in condition.terms]
    short = [level for level in asked if answers[name, level] != answer]
    says = rule.says(name, answer)
    if not short:
        return says
    return f"{says} at {100 * LEVEL:.3g} % but not at the {100 * short[0]:.3g} % that one part alone must reach"


def beside(rule: Rule) -> list[str]:
    """Note that names the parts which no verdict hangs on; no note where there are none."""
    parts = ", ".join(rule.beside())
    return [f"shown beside the verdict, never decisive: {parts}"] if parts else []


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:-1]) + (", and " if len(items) > 1 else "") + items[-1]

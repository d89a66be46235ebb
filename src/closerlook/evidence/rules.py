"""The rules that come with closerlook, by name; their text and error rates stand in docs/decision_rules.md."""

from closerlook.errors import UsageError
from closerlook.evidence.distillation_rule import distillation_rule, distillation_small_rule
from closerlook.evidence.resilience_rule import resilience_rule
from closerlook.evidence.restarts_rule import restarts_rule
from closerlook.evidence.rule import Rule
from closerlook.evidence.warmup_rule import warmup_rule, warmup_small_rule

RULES = {
    rule.name: rule
    for rule in (
        restarts_rule("restarts", 0.005), restarts_rule("restarts-small", 0.010), warmup_rule(), warmup_small_rule(),
        distillation_rule(), distillation_small_rule(), resilience_rule(),
    )
}  # fmt: skip


def find_rule(rule: str | Rule) -> Rule:
    """Rule of that name, or the given rule itself.

    Raises
    ------
    UsageError
        No rule has this name.

    Examples
    --------
    >>> find_rule("restarts").version
    1
    """
    if isinstance(rule, Rule):
        return rule
    if rule not in RULES:
        raise UsageError(f"no rule is called {rule!r}; choose one of {', '.join(sorted(RULES))}, or pass a Rule")
    return RULES[rule]

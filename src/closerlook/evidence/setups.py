"""One claim in several set-ups (data and architecture): whether one verdict holds across them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from closerlook.errors import MismatchError, UsageError
from closerlook.evidence.rule import Outcome
from closerlook.evidence.verdicts import Verdict

General = Literal["supported", "contradicted", "not decided"]
ENOUGH = 3  # set-ups that were judged, below which nothing is said in general
_OPPOSITE: Mapping[General, Outcome] = {"supported": "contradicted", "contradicted": "supported"}


@dataclass(frozen=True)
class AcrossSetups:
    """A general verdict, and the verdicts of the set-ups that it rests on.

    Attributes
    ----------
    answer
        "supported" or "contradicted" if at least two thirds of the set-ups say so and none the opposite; else "not
        decided".
    words
        The answer and its reason in one sentence.
    setups
        Verdict of every set-up by its name, in the order that was given.
    """

    answer: General
    words: str
    setups: Mapping[str, Outcome]

    @property
    def by_answer(self) -> dict[Outcome, list[str]]:
        """Names of the set-ups by their verdict: what the answer depends on, where they differ."""
        return _by_answer(self.setups)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {"answer": self.answer, "words": self.words, "setups": dict(self.setups), "by_answer": self.by_answer}

    def __str__(self) -> str:
        return "\n".join([self.words, *(f"  {answer}: {', '.join(of)}" for answer, of in self.by_answer.items())])


def across_setups(verdicts: Mapping[str, str | Verdict | Mapping[str, Any]]) -> AcrossSetups:
    """General verdict on one claim from its verdicts in several set-ups.

    *Supported* (*contradicted*) if at least three set-ups were judged, at least two thirds of all say so, and none says
    the opposite; else *not decided*, with the set-ups by their verdicts. One with numbers only, which has too few
    seeds, was not judged, and still counts among all.

    Parameters
    ----------
    verdicts
        Answer of every set-up by its name, such as "fashion x vgg11_bn": the answer itself, a `Verdict`, or one as
        plain data (verdict.json). Name data and architecture: the same ones on another machine are not another set-up.

    Raises
    ------
    MismatchError
        The verdicts are on different claims, or by different rules or versions of one.
    UsageError
        There is none, or an answer that no verdict has.

    Examples
    --------
    >>> found = across_setups({"fashion x vgg": "supported", "cifar x vgg": "supported", "cifar x mlp": "not decided"})
    >>> print(found)
    Supported across 3 set-ups: 2 of them say so, and none the opposite.
      supported: fashion x vgg, cifar x vgg
      not decided: cifar x mlp
    >>> across_setups({"fashion x vgg": "supported", "cifar x vgg": "contradicted"}).words
    'Not decided across 2 set-ups: a general verdict needs at least 3 that were judged.'
    """
    plain = {name: each.to_dict() if isinstance(each, Verdict) else each for name, each in verdicts.items()}
    _check_one_question(plain)
    setups = {name: _answer(name, each) for name, each in plain.items()}
    if not setups:
        raise UsageError("no verdicts were given; give one for each set-up")
    answer, reason = _general(setups)
    counted = f"{len(setups)} set-up" + "s" * (len(setups) != 1)
    return AcrossSetups(answer, f"{answer.capitalize()} across {counted}: {reason}.", setups)


def _check_one_question(verdicts: Mapping[str, Any]) -> None:
    """Where claim, rule and version are told, they are the same."""
    told = {name: each for name, each in verdicts.items() if isinstance(each, Mapping)}
    for what in ("claim", "rule", "version"):
        found = {name: each.get(what) for name, each in told.items()}
        if len(set(found.values())) > 1:
            listed = "; ".join(f"{name}: {value}" for name, value in found.items())
            raise MismatchError(f"the verdicts differ in their {what} ({listed}); give those of one rule and version")


def _answer(name: str, verdict: str | Mapping[str, Any]) -> Outcome:
    told = verdict.get("answer") if isinstance(verdict, Mapping) else verdict
    known: tuple[Outcome, ...] = get_args(Outcome)
    if told not in known:
        raise UsageError(f"set-up {name} has the verdict {told!r}; a verdict is one of {', '.join(known)}")
    return known[known.index(told)]


def _general(setups: Mapping[str, Outcome]) -> tuple[General, str]:
    """Answer and reason."""
    found = list(setups.values())
    if len(found) - found.count("numbers only") < ENOUGH:
        return "not decided", f"a general verdict needs at least {ENOUGH} that were judged"
    for answer, opposite in _OPPOSITE.items():
        if 3 * found.count(answer) >= 2 * len(found) and opposite not in found:
            return answer, f"{found.count(answer)} of them say so, and none the opposite"
    listed = "; ".join(f"{answer} in {', '.join(of)}" for answer, of in _by_answer(setups).items())
    return "not decided", f"it depends on the set-up ({listed})"


def _by_answer(setups: Mapping[str, Outcome]) -> dict[Outcome, list[str]]:
    different = dict.fromkeys(setups.values())
    return {answer: [name for name, told in setups.items() if told == answer] for answer in different}

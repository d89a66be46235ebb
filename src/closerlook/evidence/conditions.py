"""Which answers lead to a verdict: all of several parts at 90 %, or any one of k at 1 - 0.1 / k."""

from collections.abc import Mapping
from dataclasses import dataclass

from closerlook.evidence.paired import LEVEL, Answer

Answers = Mapping[tuple[str, float], Answer]  # by the part's name and the level of its interval


@dataclass(frozen=True)
class Condition:
    """Answers that parts must give: all of them, or any one; use `all_of` and `any_of`.

    Where all must hold, each is read at 90 %. Where any one of k suffices, each is read at ``1 - 0.1 / k``, so that
    k chances of being wrong together stay at 5 % on each side. Parts that are left out take no part: the others decide,
    at the levels of all.
    """

    terms: tuple[tuple[str, Answer], ...]
    one_suffices: bool

    @property
    def level(self) -> float:
        """Coverage of the intervals that the terms are read from."""
        return 1 - 0.1 / len(self.terms) if self.one_suffices else LEVEL

    def holding(self, answers: Answers) -> tuple[tuple[str, Answer], ...]:
        """The terms that make the condition hold; empty if it does not."""
        taking = [(part, answer) for part, answer in self.terms if answers[part, self.level] != "left out"]
        true = tuple((part, answer) for part, answer in taking if answers[part, self.level] == answer)
        return true if self.one_suffices or len(true) == len(taking) else ()


@dataclass(frozen=True)
class Gate:
    """A first question: if `part` is `answer` at 90 %, `words` are said and these conditions decide instead."""

    part: str
    answer: Answer
    words: str
    supported: Condition
    contradicted: Condition


@dataclass(frozen=True)
class Precondition:
    """A part that must be yes at 90 % before anything can be decided; `otherwise` says what it means that it is no."""

    part: str
    otherwise: str


@dataclass(frozen=True)
class Remark:
    """Words that are printed beside a verdict if `when` holds; they decide nothing."""

    when: Condition
    words: str


def all_of(terms: Mapping[str, Answer]) -> Condition:
    """Condition that every named part gives its answer, each at 90 %.

    Examples
    --------
    >>> all_of({"E1": "yes", "E2": "yes"}).level
    0.9
    """
    return Condition(tuple(terms.items()), one_suffices=False)


def any_of(terms: Mapping[str, Answer]) -> Condition:
    """Condition that at least one of k named parts gives its answer, each at ``1 - 0.1 / k``.

    Examples
    --------
    >>> any_of({"E1": "no", "E3": "no"}).level
    0.95
    """
    return Condition(tuple(terms.items()), one_suffices=True)

"""One question read in several measures: what they say together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from closerlook.errors import UsageError
from closerlook.evidence.paired import Answer
from closerlook.evidence.questions import in_english

_ENOUGH = 2


@dataclass(frozen=True)
class Agreed:
    """One question that several parts read, each in its own measure: two that agree answer it if none opposes them.

    An agreement is "yes" ("no") at a level if at least two of its parts are so at that level and none is the opposite,
    not even in the narrower interval of 90 %; else it is "open". So a wider interval never says more. Conditions name
    an agreement as they name a part. `yes` and `no` say in plain English what either answer means.

    Raises
    ------
    UsageError
        Fewer than two parts, which can never agree, or one of them twice.

    Examples
    --------
    >>> contrast = Agreed("C1", ("C1[cca]", "C1[cka]", "C1[procrustes]"))
    >>> contrast.answer(("yes", "open", "yes"), narrow=("yes", "open", "yes"))
    'yes'
    >>> contrast.answer(("yes", "open", "yes"), narrow=("yes", "no", "yes"))
    'open'
    """

    name: str
    parts: tuple[str, ...]
    yes: str = ""
    no: str = ""

    def __post_init__(self) -> None:
        """Refuse parts that could not agree."""
        if len(set(self.parts)) < max(_ENOUGH, len(self.parts)):
            raise UsageError(f"{self.name} has the parts {self.parts}; name {_ENOUGH} or more, each once")

    def answer(self, readings: Sequence[Answer], narrow: Sequence[Answer]) -> Answer:
        """Answer of the parts at one level; `narrow` are their answers at 90 %."""
        sides: tuple[tuple[Answer, Answer], ...] = (("yes", "no"), ("no", "yes"))
        for side, opposite in sides:
            if readings.count(side) >= _ENOUGH and opposite not in narrow:
                return side
        return "open"

    def says(self, answer: Answer) -> str:
        """What an answer means."""
        return in_english(self.name, self.yes, self.no, answer)


@dataclass(frozen=True)
class Agreement:
    """What the parts of an `Agreed` say together, by the level of their intervals, narrowest first."""

    agreed: Agreed
    answers: Mapping[float, Answer]

    def to_dict(self) -> dict[str, Any]:
        """Name, parts and answers as plain data; `answer` is that at the first level."""
        first = next(iter(self.answers.values()))
        levels = [{"level": level, "answer": answer} for level, answer in self.answers.items()]
        facts = {"name": self.agreed.name, "parts": list(self.agreed.parts), "answer": first, "levels": levels}
        return facts | {"says": self.agreed.says(first)}

    def __str__(self) -> str:
        """One line for a reader: the answer at each level, and the parts behind it."""
        levels = ", ".join(f"{answer} at {100 * level:.3g} %" for level, answer in self.answers.items())
        parts = ", ".join(self.agreed.parts)
        return f"{self.agreed.name} is {levels}: what two of {parts} say, if none says the opposite"

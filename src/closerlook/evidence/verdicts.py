"""A verdict with everything that it rests on, as data for a report and as text for a terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from closerlook.evidence.admission import Admitted
from closerlook.evidence.agreed import Agreement
from closerlook.evidence.printed import printed
from closerlook.evidence.readings import PartResult, Reading
from closerlook.evidence.rule import Outcome

Setting = Literal["tuned", "demonstration"]


@dataclass(frozen=True)
class Verdict:
    """A claim, its answer under one version of one rule, and every number that the answer rests on.

    Attributes
    ----------
    claim
        What was judged.
    rule, version
        Rule that judged it.
    answer
        "supported", "contradicted", "not decided", or "numbers only" (fewer than three seeds).
    words
        The answer and its reason in one sentence.
    provisional
        Fewer than five seeds.
    setting
        "tuned", "demonstration" (chosen because the effect shows), or None where it was not stated.
    seeds
        Seeds of the study, in order.
    parts
        Effects over the seeds with margin, intervals and answers.
    controls, illustrations
        Checks that come first; numbers that never enter the rule.
    agreements
        What parts that read one question in several measures say together; only for rules that ask so.
    admitted
        Which arms take part and which are left out; only for rules that ask so.
    notes
        Remarks of the rule, what parts agree on, parts that decide nothing, arms that are left out, gaps, and rows that
        the rule does not look at.
    """

    claim: str
    rule: str
    version: int
    answer: Outcome
    words: str
    provisional: bool
    setting: Setting | None
    seeds: tuple[str, ...]
    parts: tuple[PartResult, ...]
    controls: tuple[Reading, ...]
    illustrations: tuple[Reading, ...]
    notes: tuple[str, ...]
    agreements: tuple[Agreement, ...] = ()
    admitted: Admitted | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON: equal tables give equal dictionaries, and no number is NaN."""
        plain = {name: getattr(self, name) for name in ("claim", "rule", "version", "answer", "words", "provisional")}
        lists = {
            name: [each.to_dict() for each in getattr(self, name)] for name in ("parts", "controls", "illustrations")
        }
        if self.agreements:
            lists["agreements"] = [each.to_dict() for each in self.agreements]
        if self.admitted:
            plain["admission"] = self.admitted.to_dict()
        return plain | {"setting": self.setting, "seeds": list(self.seeds), "notes": list(self.notes)} | lists

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per part and interval, ready for a DataFrame."""
        return [_row(each, index) for each in self.parts for index in range(len(each.effect.intervals))]

    def __str__(self) -> str:
        return printed(self)


def _row(result: PartResult, index: int) -> dict[str, Any]:
    part, effect, interval = result.part, result.effect, result.effect.intervals[index]
    shares: Mapping[str, Any] = {f"share_{side}": share for side, share in vars(effect.shares).items()}
    return {
        "part": part.name, "quantity": part.quantity, "arm": part.arm, "baseline": part.against, "unit": part.unit,
        "n": effect.n, "effect": effect.mean, "sd": effect.sd, "margin": part.margin, **vars(interval),
        "smallest_decidable": effect.smallest_decidable, **shares,
    }  # fmt: skip

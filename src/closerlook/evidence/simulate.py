"""How often a rule gives a wrong verdict: simulated studies whose truth was planted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from closerlook.errors import UsageError
from closerlook.evidence.paired import FEWEST, SETTLED, in_words, sides
from closerlook.evidence.questions import Part
from closerlook.evidence.rule import Outcome, Rule
from closerlook.evidence.truths import Draws, Truth


@dataclass(frozen=True)
class Rates:
    """Shares of simulated studies of `n` seeds that ended in each verdict.

    Examples
    --------
    >>> Rates(n=3, draws=200, counts={"supported": 10, "not decided": 190}).rate("supported")
    0.05
    """

    n: int
    draws: int
    counts: dict[Outcome, int]

    def rate(self, verdict: Outcome) -> float:
        """Share of the studies with this verdict."""
        return self.counts.get(verdict, 0) / self.draws

    def interval(self, verdict: Outcome, level: float = 0.99) -> tuple[float, float]:
        """Exact two-sided binomial (Clopper-Pearson) interval of that share."""
        ends = stats.binomtest(self.counts.get(verdict, 0), self.draws).proportion_ci(level, method="exact")
        return float(ends.low), float(ends.high)


def simulate(rule: Rule, truth: Truth, n: int, draws: int, seed: int) -> Rates:
    """Verdicts of `draws` studies of `n` seeds under a planted truth, controls taken as passed.

    The rule's own `decide` judges every combination of answers that occurs; a failed control could only turn a
    verdict into "not decided", so the rates of wrong verdicts are upper ends.

    Raises
    ------
    UsageError
        Fewer than three seeds or no draws.

    Examples
    --------
    >>> from closerlook.evidence import RULES
    >>> from closerlook.evidence.planted import planted
    >>> effect = next(planted(RULES["restarts"]))
    >>> simulate(RULES["restarts"], effect, n=5, draws=1000, seed=0).rate("supported")
    0.0
    """
    if n < FEWEST or draws < 1:
        raise UsageError(f"{draws} studies of {n} seeds give no verdicts; use at least {FEWEST} seeds and one study")
    arms = truth.draw(rule, n, draws, np.random.default_rng(seed))
    verdicts, counts = np.unique(outcomes(rule, arms), return_counts=True)
    return Rates(n, draws, dict(zip(verdicts.tolist(), counts.tolist(), strict=True)))


def outcomes(rule: Rule, arms: Draws) -> NDArray[np.str_]:
    """Verdict of every study, decided once per combination of answers rather than once per study."""
    asked, columns = [], []
    for part in rule.parts:
        differences = _differences(part, arms)
        decides = differences.shape[1] >= (SETTLED if part.all_or_nothing else FEWEST)
        for level in rule.levels(part.name):
            asked.append((part.name, level))
            columns.append(decides * sides(differences, part.margin, level))
    told = np.stack(columns, axis=1)
    codes = (told + 1) @ 3 ** np.arange(len(asked), dtype=np.int64)  # sorted many times faster than rows
    _, first, place = np.unique(codes, return_index=True, return_inverse=True)
    answers = [{key: in_words(side) for key, side in zip(asked, row, strict=True)} for row in told[first]]
    return np.array([rule.decide(each).answer for each in answers])[place]


def _differences(part: Part, arms: Draws) -> NDArray[np.float64]:
    below = [arms[baseline, part.quantity] for baseline in part.baselines]
    return arms[part.arm, part.quantity] - (np.mean(below, axis=0) if below else 0.0)

"""Evidence over seeds: paired effects with intervals, rules fixed beforehand, and the verdicts that they give."""

from closerlook.evidence.admission import Admission, Admitted, Entrant
from closerlook.evidence.agreed import Agreed, Agreement
from closerlook.evidence.conditions import Condition, Gate, Precondition, Remark, all_of, any_of
from closerlook.evidence.effects import Effect, Interval, paired_effect
from closerlook.evidence.judge import verdict
from closerlook.evidence.paired import half_width, spread, t_interval
from closerlook.evidence.questions import Control, Illustration, Part
from closerlook.evidence.readings import PartResult, Reading
from closerlook.evidence.rule import Rule
from closerlook.evidence.rules import RULES, find_rule
from closerlook.evidence.setups import AcrossSetups, across_setups
from closerlook.evidence.table import read_table
from closerlook.evidence.verdicts import Verdict

__all__ = [
    "RULES", "AcrossSetups", "Admission", "Admitted", "Agreed", "Agreement", "Condition", "Control", "Effect",
    "Entrant", "Gate", "Illustration", "Interval", "Part", "PartResult", "Precondition", "Reading", "Remark", "Rule",
    "Verdict", "across_setups", "all_of", "any_of", "find_rule", "half_width", "paired_effect", "read_table", "spread",
    "t_interval", "verdict",
]  # fmt: skip

"""The studies: arms, controls, rule, cost, and the analysis from stored numbers to a verdict."""

from collections.abc import Mapping

from closerlook.studies.plan import Results, Study, StudyPlan
from closerlook.studies.restarts import STUDY as RESTARTS

STUDIES: Mapping[str, Study] = {"restarts": RESTARTS}

__all__ = ["STUDIES", "Results", "Study", "StudyPlan"]

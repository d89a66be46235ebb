"""The studies: arms, controls, rule, cost, and the analysis from stored numbers to a verdict."""

from collections.abc import Callable, Mapping

from closerlook.studies.plan import Results, StudyPlan
from closerlook.studies.restarts.recipe import plan as restarts_plan

STUDIES: Mapping[str, Callable[..., StudyPlan]] = {"restarts": restarts_plan}

__all__ = ["STUDIES", "Results", "StudyPlan"]

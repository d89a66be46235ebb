"""The studies: arms, controls, rule, cost, and the analysis from stored numbers to a verdict."""

from collections.abc import Mapping

from closerlook.studies.distillation import STUDY as DISTILLATION
from closerlook.studies.plan import Results, Study, StudyPlan
from closerlook.studies.resilience import STUDY as RESILIENCE
from closerlook.studies.restarts import STUDY as RESTARTS
from closerlook.studies.warmup import STUDY as WARMUP

STUDIES: Mapping[str, Study] = {
    "resilience": RESILIENCE, "restarts": RESTARTS, "warmup": WARMUP, "distillation": DISTILLATION,
}  # fmt: skip

__all__ = ["STUDIES", "Results", "Study", "StudyPlan"]

"""Does a network need a warmup, how long, because of which block: short trainings with one thing changed in each."""

from closerlook.diagnosis.arms import recipes_of
from closerlook.diagnosis.plan import settings_for
from closerlook.diagnosis.run import Diagnosis, diagnose_warmup, run
from closerlook.diagnosis.settings import Settings

__all__ = ["Diagnosis", "Settings", "diagnose_warmup", "recipes_of", "run", "settings_for"]

"""Interventions: what is changed in a training to see whether it matters. Frozen data, functions of the step alone."""

from collections.abc import Mapping

from closerlook.training.interventions.altered import Altered, AlteredOptimizer
from closerlook.training.interventions.change import Change, Intervention, Subject
from closerlook.training.interventions.clip import Clip
from closerlook.training.interventions.distil import Distil
from closerlook.training.interventions.features import MatchFeatures
from closerlook.training.interventions.freeze import Freeze
from closerlook.training.interventions.rates import GroupRate, RandomRate
from closerlook.training.interventions.smoothing import LabelSmoothing
from closerlook.training.interventions.teacher import teacher_logits

# What a recipe can say. A teacher is a network, which a recipe names by its run: `closerlook.runs.recipe.Teacher`.
AnyIntervention = GroupRate | RandomRate | Freeze | Clip | LabelSmoothing
INTERVENTIONS: Mapping[str, type[Intervention]] = {
    "group_rate": GroupRate, "random_rate": RandomRate, "freeze": Freeze, "clip": Clip,
    "label_smoothing": LabelSmoothing, "distil": Distil, "match_features": MatchFeatures,
}  # fmt: skip

__all__ = [
    "INTERVENTIONS", "Altered", "AlteredOptimizer", "AnyIntervention", "Change", "Clip", "Distil", "Freeze",
    "GroupRate", "Intervention", "LabelSmoothing", "MatchFeatures", "RandomRate", "Subject", "teacher_logits",
]  # fmt: skip

"""Distillation: where in the student does the teacher's knowledge sit."""

from closerlook.studies.distillation import analysis, numbers
from closerlook.studies.distillation.drawings import drawings
from closerlook.studies.distillation.recipe import plan
from closerlook.studies.plan import Study

STUDY = Study(plan, analysis.QUESTION, numbers.table, drawings, analysis.tables, analysis.NOTES)

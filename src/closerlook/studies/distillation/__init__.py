"""Distillation: where in the student does the teacher's knowledge sit."""

from closerlook.studies.distillation import analysis
from closerlook.studies.distillation.drawings import drawings
from closerlook.studies.distillation.recipe import plan
from closerlook.studies.plan import Study

STUDY = Study(plan, analysis.QUESTION, analysis.judge, analysis.table_csv, drawings, analysis.tables, analysis.NOTES)

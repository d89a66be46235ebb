"""Warmup: is it enough to warm up the deep layers, and is it needed."""

from closerlook.studies.plan import Study
from closerlook.studies.warmup import analysis, numbers
from closerlook.studies.warmup.drawings import drawings
from closerlook.studies.warmup.recipe import plan

STUDY = Study(plan, analysis.QUESTION, numbers.table, drawings, analysis.tables, analysis.NOTES)

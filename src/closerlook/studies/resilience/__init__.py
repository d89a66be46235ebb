"""Mode connectivity as a tool: are networks that were trained in different ways joined as easily as equal ones."""

from closerlook.studies.plan import Study
from closerlook.studies.resilience import analysis, numbers
from closerlook.studies.resilience.drawings import drawings
from closerlook.studies.resilience.recipe import plan

STUDY = Study(plan, analysis.QUESTION, numbers.table, drawings, analysis.tables, analysis.NOTES)

"""Learning-rate restarts: do they move to another solution, and is that why they help."""

from closerlook.studies.plan import Study
from closerlook.studies.restarts import analysis, numbers
from closerlook.studies.restarts.drawings import drawings
from closerlook.studies.restarts.recipe import plan

STUDY = Study(plan, analysis.QUESTION, numbers.table, drawings, analysis.tables, analysis.NOTES)

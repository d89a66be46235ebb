"""The kinds of work: one function per kind, a function of (recipe, run folder) that can be started again."""

from closerlook.steps import agreement, align, boundary, compare, connect, planes, probes, readings, sharpness, train
from closerlook.steps.registry import has_helper, help_step, run_step

__all__ = [
    "agreement", "align", "boundary", "compare", "connect", "has_helper", "help_step", "planes", "probes", "readings",
    "run_step", "sharpness", "train",
]  # fmt: skip

"""Alignment: networks whose hidden units are permuted so that they lie near each other, and what barriers are left."""

from closerlook.alignment.align import Alignment, align, alignment
from closerlook.alignment.axes import TraceError
from closerlook.alignment.groups import Symmetry, trace

__all__ = ["Alignment", "Symmetry", "TraceError", "align", "alignment", "trace"]

"""Alignment: networks whose hidden units are permuted so that they lie near each other, and what barriers are left."""

from closerlook.alignment.align import align, alignment
from closerlook.alignment.axes import TraceError
from closerlook.alignment.barriers import AlignedBarriers, aligned_barriers
from closerlook.alignment.groups import Symmetry, trace
from closerlook.alignment.repair import repair, repairable, repaired
from closerlook.alignment.result import Alignment, Method

__all__ = [
    "AlignedBarriers", "Alignment", "Method", "Symmetry", "TraceError", "align", "aligned_barriers", "alignment",
    "repair", "repairable", "repaired", "trace",
]  # fmt: skip

"""Judged numbers: losses per example in eval mode, batch-norm statistics estimated anew, and whether both repeat.

Training may use low precision; what is read here is summed in float64.
"""

from closerlook.evaluation.batch_norm import Pooling, batch_norms, estimate_batch_stats
from closerlook.evaluation.metrics import DIRECTION, Evaluation, evaluate, modes_kept, read
from closerlook.evaluation.repeatable import check_repeatable

__all__ = [
    "DIRECTION", "Evaluation", "Pooling", "batch_norms", "check_repeatable", "estimate_batch_stats", "evaluate",
    "modes_kept", "read",
]  # fmt: skip

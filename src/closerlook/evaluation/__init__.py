"""Judged numbers: losses per example in eval mode, batch-norm statistics estimated anew, and whether both repeat.

Training may use low precision; what is read here is summed in float64.
"""

from closerlook.evaluation.batch_norm import Pooling, batch_norms, estimate_batch_stats
from closerlook.evaluation.buffers import check_statistics, other_buffers, statistics_flaw
from closerlook.evaluation.metrics import Evaluation, evaluate, modes_kept, read
from closerlook.evaluation.repeatable import check_repeatable
from closerlook.evaluation.spectral import settle_spectral_norms
from closerlook.evaluation.with_statistics import with_statistics

__all__ = [
    "Evaluation", "Pooling", "batch_norms", "check_repeatable", "check_statistics", "estimate_batch_stats",
    "evaluate", "modes_kept", "other_buffers", "read", "settle_spectral_norms", "statistics_flaw",
    "with_statistics",
]  # fmt: skip

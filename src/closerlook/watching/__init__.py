"""The first steps of somebody else's training loop, watched without changing it."""

from closerlook.watching.report import WatchReport
from closerlook.watching.seeds import SeedsReport, across_seeds
from closerlook.watching.watch import watch

__all__ = ["SeedsReport", "WatchReport", "across_seeds", "watch"]

"""What the sums will take, checked against what there is before anything is allocated."""

import os
from pathlib import Path

from closerlook.errors import UsageError

REPAIR = "take fewer layers or pairs, average convolution maps over space before they are summed"
SHARE = 0.8  # of what is free: the decompositions of a layer need some as well


def available() -> int:
    """Bytes that this process can still use: of the machine, or of its control group where that is less."""
    free = _meminfo() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return free
    return min(free, limit)


def refuse_above(needed: int, max_bytes: int | None, what: str, repair: str = REPAIR) -> None:
    """Raise before `needed` bytes are allocated for `what` when they exceed the limit."""
    limit = int(SHARE * available()) if max_bytes is None else max_bytes
    if needed > limit:
        raise UsageError(
            f"{what} need {needed / 1e6:,.0f} MB and {limit / 1e6:,.0f} MB may be used; {repair}, or raise max_bytes"
        )


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None

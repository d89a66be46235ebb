"""Memory of a process that works for us alone: what it has freed is used again."""

import ctypes

# Parameters of glibc's mallopt, from its malloc.h.
_FAST_BINS, _TRIM_THRESHOLD, _MMAP_THRESHOLD = 1, -1, -3
_NEVER = (1 << 31) - 1
_THRESHOLDS = (1 << 30, 1 << 25)  # older versions take no more than the second


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, where its C library can be asked to.

    A network frees its activations after every batch. By default glibc gives large ones back to the system, which
    hands out, and clears, every page anew for the next batch: up to a fifth of the time of a forward pass. Its bins for
    small pieces are given up, as freeing any large piece would go through all of them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return
    any(mallopt(_MMAP_THRESHOLD, size) for size in _THRESHOLDS)
    mallopt(_TRIM_THRESHOLD, _NEVER)
    mallopt(_FAST_BINS, 0)

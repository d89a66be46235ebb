"""Where a run is made: versions and machine, for the report, and its one thread."""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

_PACKAGES = ("closerlook", "torch", "numpy", "scipy", "pandas", "scikit-learn", "safetensors", "pydantic")


def environment() -> dict[str, Any]:
    """Versions of what computes, the processor and its capability, cores and threads."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    """Its name where Linux tells it, else what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def decides_bits(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an environment on which the last bits of a result depend."""
    return {name: environment.get(name) for name in ("system", "cpu_capability", "threads", "cuda", "packages")}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: more are slower for small batches, and another number of them changes the bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # numpy's products as well
            yield
    finally:
        torch.set_num_threads(threads)

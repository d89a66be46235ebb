"""Where a run was made: versions and machine, for the report."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

_PACKAGES = ("closerlook", "torch", "numpy", "scipy", "pandas", "scikit-learn", "safetensors", "pydantic")


def environment() -> dict[str, Any]:
    """Versions of what computes, the processor's capability, cores and threads."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "packages": {name: version(name) for name in _PACKAGES},
    }


def decides_bits(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an environment on which the last bits of a result depend."""
    return {name: environment.get(name) for name in ("system", "cpu_capability", "threads", "cuda", "packages")}

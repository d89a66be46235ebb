"""Memory of our own processes: what was freed is used again."""

import ctypes
import subprocess
import sys

import pytest

from closerlook.launch.memory import keep_freed_memory

# Faults of four rounds of 64 MB, written and freed, after the first ones, which settle where they lie.
ROUNDS = """
import resource
import torch
from closerlook.launch.memory import keep_freed_memory
{before}
def faults():
    torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(-[faults() for _ in range(4)][-1] + [faults() for _ in range(4)][-1])
"""
PAGES = 4 * (64 << 20) // 4096


def faults(before: str) -> int:
    made = subprocess.run([sys.executable, "-c", ROUNDS.format(before=before)], capture_output=True, check=True)
    return int(made.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_used_again() -> None:
    assert faults("") > PAGES / 600  # also where pages are of 2 MB
    assert faults("keep_freed_memory()") < PAGES / 1000


def test_without_glibc_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()

"""The examples in the docstrings of `closerlook.evidence` run, and importing it brings in nothing heavy."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import closerlook.evidence

MODULES = [f"closerlook.evidence.{module.name}" for module in pkgutil.iter_modules(closerlook.evidence.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_a_verdict_needs_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, closerlook; before = set(sys.modules); import closerlook.evidence; "
        "print(({'torch', 'pandas', 'matplotlib'} & set(sys.modules)) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

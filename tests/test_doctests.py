"""The examples in the docstrings of the whole package."""

import doctest
import importlib
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

import closerlook

ROOT = Path(closerlook.__file__).parent


def modules_with_examples() -> list[str]:
    names = []
    for path in sorted(ROOT.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT.parent).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    plt.close("all")
    assert found.attempted > 0
    assert found.failed == 0

"""The pages of docs/ keep what they promise: blocks run in order and print what stands below them, links lead on.

A block whose first line is ``# name.py`` is that file. A ``text`` block is what the block above it printed: words as
they stand, ``...`` for anything, numbers within a quarter (or 0.02): other processors train slightly other networks.
"""

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pytest
import torch

from closerlook.cli import main
from conftest import digit_batches, small_net

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
# The doctests of decision_rules.md are run by tests/test_evidence_errors.py.
RUN = (
    "your_models", "batch_statistics", "barriers", "curves", "similarity", "curvature",
    "distillation", "interventions", "diagnose", "trajectories", "alignment",
)  # fmt: skip
WITH_CODE = [page for page in PAGES if page.stem in RUN]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 2) for found in BLOCK.finditer(text)]


def run_python(block: Block, page: Path, names: dict[str, object]) -> None:
    first = re.match(r"# (\w+\.py)\n", block.text)
    if first:
        Path(first[1]).write_text(block.text, encoding="utf-8")
    else:
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


def run_commands(block: Block) -> None:
    for command in block.text.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(command)
        assert program == "closerlook", f"only our own command runs here, not {program}"
        assert main(words) == 0, command


def differences(shown: str, printed: str) -> str | None:
    """What is wrong with the text that a page shows; None when it is what was printed."""
    parts = re.findall(rf"\.\.\.|{NUMBER}|[^\W\d]+|\S", shown)
    numbers = [part for part in parts if re.fullmatch(NUMBER, part)]
    patterns = {"...": ".*?", **dict.fromkeys(numbers, f"({NUMBER})")}
    found = re.fullmatch(r"\s*".join(["", *(patterns.get(part, re.escape(part)) for part in parts), ""]), printed, re.S)
    if found is None:
        return "other words"
    for ours, theirs in zip(numbers, found.groups(), strict=True):
        a, b = (float(number.replace(",", "")) for number in (ours, theirs))
        if abs(a - b) > 0.02 + 0.25 * abs(a):
            return f"{ours} is shown, and {theirs} was printed"
    return None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    with torch.random.fork_rng(devices=[]):
        yield tmp_path
    plt.close("all")
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_page_does_what_it_shows(page: Path, folder: Path) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    printed = ""
    for block in blocks_of(page):
        if block.language == "text":
            wrong = differences(block.text, printed)
            assert wrong is None, f"{page.name}, line {block.line}: {wrong}\n{printed}"
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            if block.language == "python":
                run_python(block, page, names)
            else:
                assert block.language == "sh"
                run_commands(block)
        printed = out.getvalue()


def test_the_five_lines_of_the_readme_run(folder: Path) -> None:
    for seed, name in enumerate(("a.pt", "b.pt")):
        torch.save(small_net(seed).state_dict(), name)
    names = ("train", "test", "statistics", "shuffled")
    loaders = {name: digit_batches(64, start=64 * number) for number, name in enumerate(names)}
    (block,) = (block for block in blocks_of(ROOT / "README.md") if block.language == "python")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run_python(block, ROOT / "README.md", {"model": small_net(2), **loaders})
    assert out.getvalue().count("Barrier(") == 2
    assert Path("path.csv").exists()


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_a_page_that_shows_something_else_is_found() -> None:
    assert differences("loss 0.50 at a.pt", "loss  0.55 at a.pt\n") is None
    assert differences("loss ... at a.pt", "loss anything\nat a.pt") is None
    assert differences("loss 0.50", "loss 0.90") == "0.50 is shown, and 0.90 was printed"
    assert differences("loss 0.50", "accuracy 0.50") == "other words"

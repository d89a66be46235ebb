"""``closerlook sharpness``: the numbers of the library, beside what a learning rate can bear; read once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import closerlook as cl
from closerlook.cli import main
from closerlook.data import TensorBatches

MODULE = """
import torch
from torch import nn

source = torch.Generator().manual_seed(0)
images, classes = torch.randn(90, 6, generator=source), torch.randint(0, 3, (90,), generator=source)


def net():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def data():
    return tuple((images[a:b], classes[a:b]) for a, b in ((0, 40), (40, 50), (50, 90)))
"""
COMMON = ["--model", "curved:net", "--data", "curved:data", "--split", "test", "--batch-size", "16"]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "curved.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, seed in (("a.pt", 0), ("b.pt", 1)):
        torch.manual_seed(seed)
        torch.save(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).state_dict(), name)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    status = main(["sharpness", *words, *COMMON, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if status == 0 else None, err


def test_it_is_what_the_library_says_beside_the_threshold(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--lr", "0.5", "--momentum", "0.9", "--blocks", "layers", "--top", "2"]
    status, found, _ = run(capsys, "a.pt", "b.pt", *asked)
    assert status == 0
    import curved  # the module of the fixture

    batches = TensorBatches(curved.images[50:], curved.classes[50:], 16)
    for name in ("a.pt", "b.pt"):
        told = found["checkpoints"][name]
        model = cl.loaded(curved.net(), name)
        own = cl.sharpness(model, batches, top=2, per_block=True)
        assert told["values"] == own.values.tolist()
        assert told["shares"] == dict(own.shares)
        assert {block: one["value"] for block, one in told["blocks"].items()} == {
            block: one.value for block, one in own.blocks.items()
        }
        assert told["critical_lr"]["value"] == cl.critical_lr(model, batches).value
        assert told["verdict"] == "below"
        assert own.value + own.residuals[0] < found["threshold"]
    assert found["threshold"] == cl.stability_threshold("sgd", 0.5, momentum=0.9)


def test_another_rate_reads_nothing_again(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, "a.pt", "--lr", "0.5")[1]
    (stored,) = Path("runs").glob("sharpness-*/results/sharpness.json")
    written = stored.stat().st_mtime_ns
    second = run(capsys, "a.pt", "--lr", "500")[1]
    assert stored.stat().st_mtime_ns == written
    value = first["checkpoints"]["a.pt"]["values"][0]
    third = run(capsys, "a.pt", "--lr", str(2 / value))[1]
    verdicts = [one["checkpoints"]["a.pt"]["verdict"] for one in (first, second, third)]
    assert verdicts == ["below", "above", "within the residual"]
    assert main(["runs", "show", stored.parent.parent.name]) == 0
    assert "eigenvalue 1" in capsys.readouterr().out


def test_the_table_names_blocks_and_what_was_read(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sharpness", "a.pt", *COMMON, "--block", "deep=2.*"]) == 0
    out = capsys.readouterr().out
    assert "eigenvalue alone" in out
    assert "40 test images in 3 batches of 16" in out
    assert main(["sharpness", "a.pt", *COMMON, "--dry-run"]) == 0
    assert "to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.pt"], "missing.pt"),
        (["a.pt", "--block", "deep=9.*"], "no trained parameter is in the block 'deep'"),
        (["a.pt", "--block", "deep"], "write NAME=PATTERN"),
        (["a.pt", "--blocks", "layers", "--block", "deep=2.*"], "give one of the two"),
        (["a.pt", "--batch-norm", "running"], "no batch-norm statistics"),
        (["a.pt", "--top", "1000"], "more eigenvalues than there are trained parameters, 53"),
        (["a.pt", "--momentum", "0.9"], "says nothing without --lr"),
        (["a.pt", "--lr", "0.1", "--momentum", "1"], "must be below 1"),
        (["a.pt", "--examples", "41"], "40 test images to read"),
    ],
)
def test_wrong_use_is_named_before_anything_is_read(
    words: list[str], said: str, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, *words)
    assert status == 2
    assert said in err
    assert not Path("runs").exists()

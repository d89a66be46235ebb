"""Checkpoints that were changed at random, or made to run code, are read or refused: never a traceback, never code."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closerlook import files
from closerlook.cli import main
from closerlook.errors import CloserlookError
from closerlook.models import build
from closerlook.runs.folder import RunFolder
from closerlook.runs.inspection import inspect
from closerlook.weights import WeightSpace

FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
NET = build("mlp", in_features=64, hidden=(4,), classes=10)
ON = ["--model", "mlp", "--model-options", "hidden=[4]", "--data", "digits", "--n-train", "60"]
READ = [*ON, "--points", "3", "--epochs", "0"]


def saved(content: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


WHOLE = {
    ".pt": saved(NET.state_dict()),
    ".pth": saved({"epoch": 3, "model": NET.state_dict()}, _use_new_zipfile_serialization=False),
    ".safetensors": safetensors.torch.save(NET.state_dict()),
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(content: bytes, suffix: str) -> None:
    """Read a checkpoint as weights, as a state, and as what a run left; only typed errors, and no other file."""
    path = Path(f"a{suffix}")
    path.write_bytes(content)
    with suppress(CloserlookError):
        WeightSpace(NET).point(path)
    with suppress(CloserlookError):
        files.read_tensors(path)
    assert [item.name for item in Path().iterdir()] == [path.name]
    path.unlink()


@FUZZ
@given(content=st.binary(max_size=200), suffix=st.sampled_from([*WHOLE, ".bin", ".ckpt", ""]))
def test_any_bytes(content: bytes, suffix: str) -> None:
    read(content, suffix)


@FUZZ
@given(suffix=st.sampled_from(list(WHOLE)), data=st.data())
def test_changed_bytes(suffix: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[suffix])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            content[at : at + data.draw(st.integers(0, 300))] = data.draw(st.binary(max_size=20))
    read(bytes(content), suffix)


@FUZZ
@given(suffix=st.sampled_from(list(WHOLE)), share=st.floats(0, 1), other=st.sampled_from(list(WHOLE)))
def test_truncated_and_under_another_name(suffix: str, share: float, other: str) -> None:
    read(WHOLE[suffix][: int(share * len(WHOLE[suffix]))], other)


@FUZZ
@given(
    header=st.one_of(
        st.binary(max_size=40), st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.none()), max_size=3),
        st.fixed_dictionaries({"x": st.fixed_dictionaries({
            "dtype": st.sampled_from(["F32", "BF16", "F8_E4M3", "U16", "I4", "", "F64"]),
            "shape": st.lists(st.integers(0, 2**63), max_size=3),
            "data_offsets": st.lists(st.integers(0, 2**63), min_size=1, max_size=3),
        })}),
        st.fixed_dictionaries({"__metadata__": st.dictionaries(st.just("note"), st.text(max_size=9))}),
    ),
    length=st.one_of(st.none(), st.integers(0, 2**64 - 1)), rest=st.binary(max_size=30),
)  # fmt: skip
def test_headers_that_lie(header: Any, length: int | None, rest: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    read(struct.pack("<Q", len(text) if length is None else length) + text + rest, ".safetensors")


def arrays(**how: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if how.get("compressed") else np.savez)(buffer, a=np.arange(9.0), b=np.ones((2, 3)))
    return buffer.getvalue()


@FUZZ
@given(compressed=st.booleans(), data=st.data())
def test_changed_arrays(compressed: bool, data: st.DataObject) -> None:
    content = bytearray(arrays(compressed=compressed))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    Path("a.npz").write_bytes(content)
    with suppress(CloserlookError):
        found = files.read_arrays("a.npz")
        assert np.array_equal(found.get("a", np.arange(9.0)), np.arange(9.0))


class Evil:
    """Its unpickling would make a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.mkdir, (Path("ran"),))


class Command(Evil):
    """Its unpickling would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("__import__('os').system('touch ran')",))


def in_a_zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


MALICIOUS: dict[str, Callable[[Any], bytes]] = {
    "zip": saved, "old": lambda content: saved(content, _use_new_zipfile_serialization=False),
    "inside": lambda content: saved({"model": NET.state_dict(), "epoch": content}), "pickle": pickle.dumps,
    "only data": lambda content: in_a_zip(pickle.dumps(content)), "two": lambda content: pickle.dumps(content) * 2,
}  # fmt: skip


@pytest.mark.parametrize("evil", [Evil, Command])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin", ""])
@pytest.mark.parametrize("form", MALICIOUS)
def test_no_code_of_a_checkpoint_runs(
    form: str, suffix: str, evil: type[Evil], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(f"evil{suffix}").write_bytes(MALICIOUS[form](evil()))
    Path("sound.pt").write_bytes(WHOLE[".pt"])
    for ends in ([f"evil{suffix}", "sound.pt"], ["sound.pt", f"evil{suffix}"]):
        assert main(["path", *ends, *READ]) in (1, 2)
        out, err = capsys.readouterr()
        assert (out, err[:12]) == ("", "closerlook: ")
        assert f"evil{suffix}" in err
        assert "Traceback" not in err
    assert sorted(path.name for path in Path().iterdir()) == sorted([f"evil{suffix}", "sound.pt"])


@pytest.mark.parametrize("evil", [Evil, Command])
def test_no_code_of_a_run_folder_runs(evil: type[Evil]) -> None:
    folder = RunFolder(Path("train-00000000"))
    names = ["recipe.json", "DONE", "state.safetensors", "metrics.jsonl", "timings.jsonl", "environment.json"]
    for name in (*names, "results/outcome.json", "results/logits.npz", "checkpoints/step-000000.safetensors"):
        files.write_bytes(folder.path / name, pickle.dumps(evil()))
    for look in (folder.recipe, folder.journal, lambda: folder.result("outcome"), folder.seconds, folder.damage):
        with suppress(CloserlookError):
            look()
    with pytest.raises(CloserlookError):
        files.read_arrays(folder.path / "results" / "logits.npz")
    assert inspect(folder).damage
    assert main(["runs", "verify", "--runs", "."]) == 1
    assert not Path("ran").exists()

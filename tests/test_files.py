"""Files are either old or new, equal content has equal bytes, and what is damaged is named with its repair."""

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from closerlook import files
from closerlook.errors import DiskFullError, StoreError


def failing(patch: pytest.MonkeyPatch, moment: str, number: int) -> None:
    """Let the disk fail with an error number at one moment of writing."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    class Half(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(bytes(data)[: len(data) // 2])
            fail()
            return 0

    def open_half(path: Path, mode: str) -> io.BufferedWriter:
        return io.BufferedWriter(Half(path, mode.replace("b", "")))

    places: dict[str, tuple[Any, str, Any]] = {
        "mkdir": (Path, "mkdir", fail), "open": (Path, "open", fail), "write": (Path, "open", open_half),
        "fsync": (os, "fsync", fail), "replace": (Path, "replace", fail),
    }  # fmt: skip
    patch.setattr(*places[moment])


MOMENTS = ["mkdir", "open", "write", "fsync", "replace"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, DiskFullError, r"the disk of .* is full: result\.json needs 14 bytes, [\d,]+ are free"),
        (errno.EDQUOT, DiskFullError, r"the quota on the disk of .* is used up: result\.json needs 14 bytes"),
        (errno.EIO, OSError, r"Input/output error: .*result\.json"),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, number: int, kind: type[Exception], said: str
) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"old": 1})
    with monkeypatch.context() as patched:
        failing(patched, moment, number)
        with pytest.raises(kind, match=said):
            files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("moment", ["open", "write"])
def test_a_line_that_finds_no_room_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "rows"
    files.append_line(path, "one")
    with monkeypatch.context() as patched:
        failing(patched, moment, errno.ENOSPC)
        with pytest.raises(DiskFullError, match="rows needs 4 bytes"):
            files.append_line(path, "two")
    with monkeypatch.context() as patched:
        failing(patched, "fsync", errno.ENOSPC)
        with pytest.raises(DiskFullError, match=r"is full: [\d,]+ are free"):
            files.sync(path)
    assert path.read_bytes().startswith(b"one\n")
    files.sync(path)


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    (tmp_path / "results").write_text("no folder")
    for path, culprit in (("a.json", "a.json"), ("results/b.json", "results"), ("results/deep/b.json", "results")):
        said = rf"{tmp_path / culprit} is in the way of {tmp_path / path}: .*move it away"
        with pytest.raises(StoreError, match=said):
            files.write_json(tmp_path / path, {})
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["a.json", "results"]


def test_what_cannot_be_used_is_set_aside(tmp_path: Path) -> None:
    state, aside = tmp_path / "state", tmp_path / ".state.unreadable"
    for content in ("first", "second"):
        state.write_text(content)
        assert files.set_aside(state) == aside
        assert aside.read_text() == content
    aside.unlink()
    for name in ("a", "b"):
        (state / name).mkdir(parents=True)
        files.set_aside(state)
        assert [item.name for item in aside.iterdir()] == [name]
    assert not state.exists()


def test_the_new_file_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append("fsync"), fsync(number))[1])
    monkeypatch.setattr(Path, "replace", lambda self, other: (calls.append("replace"), replace(self, other))[1])
    files.write_bytes(tmp_path / "folder" / "file", b"content")
    assert calls == ["fsync", "replace", "fsync"]
    assert (tmp_path / "folder" / "file").read_bytes() == b"content"


def test_leftovers_of_killed_writers_go_and_other_hidden_files_stay(tmp_path: Path) -> None:
    gone = [tmp_path / ".state.safetensors.4711.tmp", tmp_path / "checkpoints" / ".step-000001.safetensors.12.tmp"]
    kept = [tmp_path / name for name in (".mine.tmp", ".tmp", "a.1.tmp", "deep/er/.file.1.tmp", ".file.1.txt")]
    for path in (*gone, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    files.remove_temporaries(tmp_path)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)
    files.remove_temporaries(tmp_path / "nowhere")


def test_the_leftover_of_a_real_writer_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        patched.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError):
            files.write_bytes(tmp_path / "state.safetensors", b"half")
    assert len(list(tmp_path.iterdir())) == 1
    files.remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == []


WRITERS: dict[str, tuple[Callable[[Path, Any], None], Any]] = {
    "json": (files.write_json, {"b": [1.5, None], "a": {"ü": float("inf")}}),
    "npz": (files.write_arrays, {"b": np.arange(3.0), "a": np.ones((2, 2), dtype=np.int64)}),
    "safetensors": (
        lambda path, value: files.write_tensors(path, value, {"step": 3, "epoch": 0.1, "a": True}),
        {"b": torch.arange(4.0), "a": torch.ones(2, dtype=torch.int64)},
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_equal_content_has_equal_bytes(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, value = WRITERS[kind]
    write(tmp_path / "first", value)
    monkeypatch.setattr("time.time", lambda: 1e9)
    write(tmp_path / "second", dict(reversed(value.items())))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    value = {"none": None, "list": [1, 2.5], "text": "ü"}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    files.write_arrays(tmp_path / "a.npz", {"x": np.arange(6).reshape(2, 3)})
    assert files.read_arrays(tmp_path / "a.npz")["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    last = torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    files.write_tensors(tmp_path / "a.safetensors", {"x": last, "view": last[0, 0]}, {"step": 7})
    tensors, note = files.read_tensors(tmp_path / "a.safetensors")
    assert note == {"step": 7}
    assert torch.equal(tensors["x"], last)
    assert torch.equal(tensors["view"], last[0, 0])
    assert files.read_tensors(tmp_path / "a.safetensors")[0]["x"].is_contiguous()


def test_the_order_in_the_file_is_the_logical_one_whatever_the_memory_format(tmp_path: Path) -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    files.write_tensors(tmp_path / "first", {"x": x})
    files.write_tensors(tmp_path / "last", {"x": x.contiguous(memory_format=torch.channels_last)})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "last").read_bytes()


@pytest.mark.parametrize(
    ("kind", "read"),
    [("json", files.read_json), ("npz", files.read_arrays), ("safetensors", files.read_tensors)],
)
@pytest.mark.parametrize("left", [0, 1, 0.5, 0.9])
def test_a_truncated_or_missing_file_is_named_with_its_repair(
    tmp_path: Path, kind: str, read: Callable[[Path], Any], left: float
) -> None:
    write, value = WRITERS[kind]
    path = tmp_path / f"result.{kind}"
    with pytest.raises(StoreError, match=rf"result\.{kind}.*closerlook runs verify"):
        read(path)
    write(path, value)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(StoreError, match=rf"result\.{kind}.*closerlook runs verify names the repair"):
        read(path)


@pytest.mark.parametrize(
    "tensor",
    [torch.tensor(2.5), torch.zeros(0, 3), torch.ones(2, dtype=torch.bool), torch.ones(3, dtype=torch.bfloat16),
     torch.ones(2, dtype=torch.complex64), torch.arange(6.0).reshape(2, 3).T],
    ids=str,
)  # fmt: skip
def test_every_kind_of_tensor_comes_back_checked(tmp_path: Path, tensor: torch.Tensor) -> None:
    files.write_tensors(tmp_path / "a", {"x": tensor})
    tensors, note = files.read_tensors(tmp_path / "a")
    assert torch.equal(tensors["x"], tensor)
    assert note == {}
    assert tensors["x"].dtype == tensor.dtype


def test_one_changed_bit_of_our_tensors_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    files.write_tensors(path, {"a": torch.arange(4.0), "b": torch.arange(2)}, {"step": 1})
    whole = path.read_bytes()
    for place in range(len(whole) - 8 * 4, len(whole), 5):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(StoreError, match=r"state\.safetensors holds other numbers than were written"):
            files.read_tensors(path)
    path.write_bytes(whole.replace(b'"F32"', b'"I32"'))
    with pytest.raises(StoreError, match="other numbers"):
        files.read_tensors(path)


def test_tensors_of_other_tools_are_read_as_they_are(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "a", {"format": "pt"})
    assert files.read_tensors(tmp_path / "a")[1] == {}
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "a", {"note": "written by hand"})
    with pytest.raises(StoreError, match="cannot be read as safetensors"):
        files.read_tensors(tmp_path / "a")


def test_text_in_another_encoding_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps({"a": "ü"}, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(StoreError, match="not readable JSON"):
        files.read_json(tmp_path / "a.json")


class Evil:
    """Its unpickling would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_no_code_of_an_npz_runs(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", x=np.array([Evil(tmp_path / "ran")], dtype=object))
    with pytest.raises(StoreError, match=r"evil\.npz"):
        files.read_arrays(tmp_path / "evil.npz")
    assert not (tmp_path / "ran").exists()


def test_checksums_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(tmp_path / "a") == files.digest("abc") == known

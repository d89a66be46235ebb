"""A disk that is full at any moment: the command says so, leaves nothing half written, and ends the same given room."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from closerlook.cli import main
from closerlook.training.checkpoint import StateFile

RECIPE = {
    "data": {"name": "digits", "n_train": 60, "n_validation": 20, "n_statistics": 20, "n_read": 20, "seed": 0},
    "model": {"name": "mlp", "options": {"hidden": [4]}}, "optimizer": {"lr": 0.1}, "epochs": 2, "batch_size": 20,
    "seeds": {"init": 0, "order": 0, "augment": 0, "noise": 0}, "snapshots": ["1ep"], "forks": ["1ep"],
}  # fmt: skip
TRAIN = ["train", "recipe.json"]
WHEN_AND_WHERE = {"timings.jsonl", "environment.json"}


class Disk:
    """Counts what is written, and from the operation number `room` on has none left."""

    def __init__(self, patch: pytest.MonkeyPatch, room: float = float("inf")) -> None:
        self.room, self.used = room, 0
        opened = Path.open

        def open_counted(path: Path, mode: str = "r", *given: Any, **named: Any) -> Any:
            if set(mode) & {"w", "a", "x"}:
                self.take()
            return opened(path, mode, *given, **named)

        patch.setattr(Path, "open", open_counted)
        for place, name in ((os, "fsync"), (Path, "replace"), (Path, "mkdir")):
            patch.setattr(place, name, self.counted(getattr(place, name)))

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def write(*given: Any, **named: Any) -> Any:
            self.take()
            return function(*given, **named)

        return write

    def take(self) -> None:
        self.used += 1
        if self.used > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too, that is equal when it is made again."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name not in WHEN_AND_WHERE}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, with a recipe and a finished training in `whole`; states are written after every step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StateFile, "due", lambda self: True)
    Path("recipe.json").write_text(json.dumps(RECIPE))
    assert main([*TRAIN, "--runs", "whole"]) == 0
    return tmp_path


def path_of(runs: str) -> list[str]:
    """The path between the ends of the training in `whole`."""
    (train,) = Path("whole").glob("train-*")
    ends = [str(train / "checkpoints" / f"step-{step:06d}.safetensors") for step in (0, 6)]
    return ["path", *ends, "--epochs", "1", "--points", "3", "--batch-size", "20", "--runs", runs]


def full_everywhere(words: Callable[[str], list[str]], every: int, capsys: pytest.CaptureFixture[str]) -> int:
    """Run a command with a disk that is full at any `every`-th operation, then once more; returns the operations."""
    with pytest.MonkeyPatch.context() as patched:
        disk = Disk(patched)
        assert main(words("undisturbed")) == 0
    for room in range(0, disk.used, every):
        runs = f"runs-{room}"
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patched:
            Disk(patched, room)
            assert main(words(runs)) == 1, room
        err = capsys.readouterr().err
        assert "Traceback" not in err
        assert " is full: " in err, (room, err)
        assert f"the disk of {Path.cwd()}" in err
        assert "start the same command again" in err
        assert [path.name for path in Path(runs).rglob(".*")] == []
        assert main(words(runs)) == 0, room
        assert contents(Path(runs)) == contents(Path("undisturbed")), room
    return disk.used


def test_a_training(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert full_everywhere(lambda runs: [*TRAIN, "--runs", runs], 1, capsys) > 40


def test_a_path(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert full_everywhere(path_of, 19, capsys) > 60


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, where the machine lets us have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        ended = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount on this machine")
    if ended.returncode:
        pytest.skip("nobody may mount here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(place: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TRAIN, "--runs", str(small_disk / "runs")]
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(44 * 1024))
    assert main(words) == 1
    err = capsys.readouterr().err
    assert f"the disk of {small_disk}" in err
    assert " is full: " in err
    assert "Traceback" not in err
    assert [path.name for path in small_disk.rglob(".*")] == []
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert main(words) == 0
    assert contents(small_disk / "runs") == contents(place / "whole")
    assert main(["runs", "verify", "--runs", str(small_disk / "runs")]) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_finds_no_room() -> None:
    ended = subprocess.run(
        ["sh", "-c", "closerlook --version > /dev/full"], capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (1, "closerlook: No space left on device\n")

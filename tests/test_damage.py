"""Whatever happens to a file of a run: the command says what to do, or does it, and never gives other numbers."""

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from closerlook.cli import main

RECIPE = {
    "data": {"name": "digits", "n_train": 60, "n_validation": 20, "n_statistics": 20, "n_read": 20, "seed": 0},
    "model": {"name": "mlp", "options": {"hidden": [4]}}, "optimizer": {"lr": 0.1}, "epochs": 2, "batch_size": 20,
    "seeds": {"init": 0, "order": 0, "augment": 0, "noise": 0}, "snapshots": ["1ep"], "forks": ["1ep"],
}  # fmt: skip
TRAIN = ["train", "recipe.json", "--json"]
# When and where a run was made decides nothing, so that nothing is lost with it.
IDLE = {"timings.jsonl", "environment.json", "LOCK"}

Damage = Callable[[Path], object]


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes() or b"x")
    content[len(content) // 2 :] = os.urandom(len(content) - len(content) // 2)
    path.write_bytes(content)


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "empty": lambda path: cut(path, 0), "half": lambda path: cut(path, 0.5), "short": lambda path: cut(path, 0.99),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)), "other bytes": spoil, "gone": Path.unlink,
    "other text": lambda path: path.write_text("[1, 2]\n"), "folder": into_folder,
}  # fmt: skip


def command(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(words)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished training, and a path between its checkpoints."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        Path("recipe.json").write_text(json.dumps(RECIPE))
        assert main(["train", "recipe.json"]) == 0
        assert main(path_of(folder)) == 0
    return folder


def path_of(folder: Path) -> list[str]:
    """The path between the first and the last checkpoint, named as they lie in the present folder."""
    (train,) = (folder / "runs").glob("train-*")
    ends = [f"runs/{train.name}/checkpoints/step-{step:06d}.safetensors" for step in (0, 6)]
    return ["path", *ends, "--epochs", "1", "--points", "3", "--batch-size", "20"]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is equal when it is made again; no hidden one."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name not in IDLE}


NAMES = [
    "recipe.json", "DONE", "metrics.jsonl", "state.safetensors", "results/outcome.json", "environment.json",
    "timings.jsonl", "LOCK", "checkpoints/step-000003.safetensors", "checkpoints/fork-000003.safetensors",
]  # fmt: skip


@pytest.fixture
def train(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the training's run folder, in the present folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(made / "recipe.json", tmp_path)
    (run,) = (made / "runs").glob("train-*")
    return Path(shutil.copytree(run, tmp_path / "runs" / run.name))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", NAMES)
def test_a_finished_training(name: str, how: str, train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = contents(train)
    DAMAGES[how](train / name)
    status, out, _ = command(["runs", "verify"], capsys)
    if name in IDLE or (name, how) == ("DONE", "gone"):
        assert status == 0
    else:
        assert status == 1
        assert name in out
    status, out, err = command(TRAIN, capsys)
    if status:  # it cannot be repaired in passing: verify and this say how it can
        assert status == 1
        assert name in err
        command(["runs", "rm", train.name], capsys)
        shutil.rmtree(train, ignore_errors=True)
        status, out, err = command(TRAIN, capsys)
    assert status == 0
    told = json.loads(out)
    assert (told["diverged_at"], told["step"]) == (None, 6)
    if how != "folder" and contents(train) != whole:  # the command did not read it; verify told
        assert name.startswith(("checkpoints", "state", "recipe"))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "DONE"])
def test_an_unfinished_training(name: str, how: str, train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = contents(train)
    (train / "DONE").unlink()
    DAMAGES[how](train / name)
    command(["runs", "verify"], capsys)
    assert command(["runs", "ls"], capsys)[0] == 0
    status, _, err = command(TRAIN, capsys)
    if how == "folder" and status:
        assert status == 1
        assert name in err
        (train / name).rmdir()
        status, _, err = command(TRAIN, capsys)
    assert status == 0, err
    assert contents(train) == whole
    assert command(["runs", "verify"], capsys)[0] == 0


@pytest.fixture
def path(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The whole folder as the present one, since a path is named by where its ends lie; put back afterwards."""
    monkeypatch.chdir(made)
    shutil.copytree(made / "runs", tmp_path / "runs")
    yield made
    shutil.rmtree(made / "runs")
    shutil.copytree(tmp_path / "runs", made / "runs")


@pytest.mark.parametrize("how", [how for how in DAMAGES if how != "folder"])
@pytest.mark.parametrize("name", ["profile.json", "curve.json", "curve.safetensors"])
def test_a_finished_path(name: str, how: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, words = contents(path / "runs"), path_of(path)
    (damaged, *_) = sorted((path / "runs").glob(f"*/results/{name}"))
    run = damaged.parent.parent.name
    DAMAGES[how](damaged)
    status, out, err = command(["runs", "verify"], capsys)
    assert (status, f"{run}: results/{name} is " in out, "repair: closerlook runs rm" in out) == (1, True, True)
    status, out, err = command(words, capsys)
    if name.endswith(".json"):  # the weights of the curve were read before: verify told of them
        assert (status, out) == (1, "")
        assert f"repair: closerlook runs rm {run} --runs runs, then the command that made it" in err
    assert command(["runs", "rm", run], capsys)[0] == 0
    assert command(words, capsys)[0] == 0
    assert contents(path / "runs") == whole


@pytest.mark.parametrize("name", ["recipe.json", "DONE", "metrics.jsonl", "results/outcome.json"])
def test_a_file_that_may_not_be_read(
    name: str, train: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = io.open

    def refuse(file: Any, *given: Any, **named: Any) -> Any:
        if str(file).endswith(f"{train.name}/{name}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return opened(file, *given, **named)

    monkeypatch.setattr(io, "open", refuse)
    status, out, _ = command(["runs", "verify"], capsys)
    assert status == 1
    assert name in out
    assert command(["runs", "ls"], capsys)[0] == 0
    status, _, err = command(["runs", "show", train.name], capsys)
    assert (status, name in err) == ((0, False) if name == "DONE" else (1, True))


def test_a_state_of_no_use_is_said_and_nothing_of_it_is_used(train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = contents(train)
    (train / "DONE").unlink()
    cut(train / "state.safetensors", 0.5)
    status, _, err = command(TRAIN, capsys)
    assert status == 0
    assert f"{train.name} starts from its beginning, its state is set aside: " in err
    assert (train / ".state.safetensors.unreadable").exists()
    assert contents(train) == whole

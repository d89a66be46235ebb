"""Every error of the list, through the command: one readable answer, the right exit status, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from closerlook.cli import main, verbs
from closerlook.errors import DataMissingError
from closerlook.models import build
from closerlook.runs.store import Store, only_one

ON = ["--model", "mlp", "--model-options", "hidden=[4]", "--data", "digits", "--n-train", "60"]
READ = [*ON, "--points", "3"]
RECIPE = {
    "data": {"name": "digits", "n_train": 60, "n_validation": 20, "n_statistics": 20, "n_read": 20, "seed": 0},
    "model": {"name": "mlp", "options": {"hidden": [4]}}, "optimizer": {"lr": 0.1}, "epochs": 2, "batch_size": 20,
    "seeds": {"init": 0, "order": 0, "augment": 0, "noise": 0},
}  # fmt: skip


def state(seed: int, width: int = 4) -> dict[str, torch.Tensor]:
    return build("mlp", seed=seed, in_features=64, hidden=(width,), classes=10).state_dict()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints: three that are sound, and others that are not."""
    folder, a, b = tmp_path_factory.mktemp("shelf"), state(0), state(1)
    spoiled = {name: value.clone() for name, value in a.items()}
    spoiled["fc1.weight"][0, 0] = float("nan")
    checkpoints = {
        "a": a, "b": b, "c": state(2), "wide": state(0, 5), "half": {name: value.half() for name, value in a.items()},
        "between": {name: (a[name] + b[name]) / 2 for name in a}, "nan": spoiled,
        "extra": {**a, "new.bias": a["fc2.bias"]},
        "missing": {name: value for name, value in a.items() if name != "fc2.bias"},
        "other": build("vgg11", width=0.0625, in_channels=1, image_size=32).state_dict(),
    }  # fmt: skip
    for name, content in checkpoints.items():
        torch.save(content, folder / f"{name}.pt")
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    return folder


@pytest.fixture(autouse=True)
def place(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all of them."""
    for file in shelf.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status and stderr of a command that answers nothing and leaves nothing."""
    before = sorted(Path().rglob("*"))
    status = main(words)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("closerlook: ")
    assert "Traceback" not in err
    assert sorted(Path().rglob("*")) == before
    return status, " ".join(err.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["path", "a.pt", "other.pt", *READ], ["other.pt", "4 missing, 22 not in the model"]),
        (["path", "a.pt", "missing.pt", *READ], ["missing.pt", "1 missing", "fc2.bias (10,) is missing"]),
        (["path", "a.pt", "extra.pt", *READ], ["extra.pt", "new.bias (10,) is not in the model"]),
        (["path", "a.pt", "wide.pt", *READ], ["wide.pt", "fc1.weight: (5, 64) here, (4, 64) in the model"]),
        (["path", "a.pt", "half.pt", *READ], ["torch.float16", "torch.float32", "convert them to one type"]),
        (["path", "a.pt", "nan.pt", *READ], ["nan.pt", "holds NaN or infinite weights"]),
        (["barrier", "a.pt", "b.pt", "nan.pt", *READ], ["nan.pt", "holds NaN or infinite weights"]),
        (["surface", "a.pt", "between.pt", "b.pt", *ON], ["the three points lie on one line", "choose another third"]),
        (["surface", "a.pt", "b.pt", "nan.pt", *ON], ["nan.pt", "holds NaN or infinite weights"]),
        (["surface", "a.pt", "b.pt", "b.pt", *ON], ["the same checkpoint is named twice"]),
        (["path", "a.pt", "recipe.json", *READ], ["recipe.json"]),
        (["train", "recipe.json", "--set", "optimizer.mometum=0"], ["optimizer.mometum: unknown key; did you mean"]),
        (["train", "recipe.json", "--set", "epoch=1"], ["epoch: unknown key; did you mean epochs?"]),
        (["train", "recipe.json", "--set", "optimizer.lr=NaN"], ["optimizer.lr: must be a finite number"]),
        (
            ["train", "recipe.json", "--set", 'schedule={"kind": "cosine", "final": NaN}'],
            ["schedule.final: must be a finite number"],
        ),
    ],
)
def test_wrong_use_is_status_2(words: list[str], said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, err = refused(words, capsys)
    assert all(each in err for each in said), err
    assert status == 2


def test_a_file_name_that_is_no_text_is_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    odd = os.fsdecode(b"odd\x80.pt")
    try:
        Path(odd).symlink_to("b.pt")
    except OSError:
        pytest.skip("file names are text here")
    assert main(["barrier", "a.pt", odd, *READ, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["a.pt", "odd\\udc80.pt"]
    assert main(["path", "a.pt", odd, *READ, "--epochs", "0"]) == 0
    assert main(["runs", "verify"]) == 0


def test_missing_data_print_the_line_that_installs_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("closerlook.data.mnist.packaged", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.delenv("CLOSERLOOK_DATA", raising=False)
    status, err = refused(["path", "a.pt", "b.pt", "--model", "mlp", "--data", "mnist5k"], capsys)
    assert status == 2
    assert "pip install 'closerlook[mnist]'" in err


def test_lines_of_an_error_stay_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def ends() -> int:
        """Do nothing."""
        raise DataMissingError("no files in\n  here\nways out:\n  pip install 'closerlook[extra]'")

    monkeypatch.setattr(verbs, "function_of", lambda verb: ends)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "  pip install 'closerlook[extra]'"


def test_a_second_command_on_a_study_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "restarts", "--scale", "smoke", "--jobs", "1"]
    assert main([*words, "--dry-run", "--json"]) == 0
    folder = Path(json.loads(capsys.readouterr().out)["folder"])
    with only_one(folder / "LOCK"):
        assert main(words) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"closerlook: another command works on {folder} (process {os.getpid()}); wait for it\n")
    assert [path.name for path in Path("runs").iterdir()] == [folder.name]


HOLDER = """
import sys, time
from pathlib import Path
from closerlook.runs.locks import waiting
with waiting(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_command_on_a_step_waits_and_says_for_whom(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "recipe.json"]) == 0
    (run,) = Store(Path("runs")).runs()
    (run.path / "DONE").unlink()
    capsys.readouterr()
    command = [sys.executable, "-c", HOLDER, str(run.path / "LOCK")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert main(["runs", "rm", run.id]) == 1
        assert f"(process {holder.pid})" in capsys.readouterr().err
        other = [sys.executable, "-m", "closerlook", "train", "recipe.json"]
        with subprocess.Popen(other, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as second:
            assert second.stderr is not None
            said = second.stderr.readline()
            assert said == f"{run.path} is in the hands of process {holder.pid}; waiting for it\n"
            assert second.poll() is None
            holder.communicate("go\n")
            assert second.wait() == 0
    assert run.done


@pytest.fixture
def long_training() -> Iterator["subprocess.Popen[str]"]:
    """A command that takes a while, at work."""
    words = ["train", "recipe.json", "--set", "epochs=100000"]
    command = [sys.executable, "-m", "closerlook", *words]
    environment = {**os.environ, "CLOSERLOOK_CHECKPOINT_SECONDS": "0.05"}
    # A test run in the background of a shell inherits that interrupts are ignored.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heard}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
        until = time.monotonic() + 60
        while not list(Path("runs").glob("*/state.safetensors")) and time.monotonic() < until:
            time.sleep(0.02)
        yield process
        process.kill()


def test_an_interrupt_keeps_the_work_and_says_so(long_training: "subprocess.Popen[str]") -> None:
    long_training.send_signal(signal.SIGINT)
    out, err = long_training.communicate()
    assert (long_training.returncode, out) == (130, "")
    assert err == "closerlook: stopped; what was finished is kept, and the same command goes on from there\n"
    (run,) = Store(Path("runs")).runs()
    assert (run.path / "state.safetensors").exists()
    assert main(["runs", "verify"]) == 0


def test_a_closed_stdout_is_no_error() -> None:
    command = f"{sys.executable} -m closerlook ls models >&-"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")

"""Run folders: DONE comes last, damage is found and named, one writer at a time, and a dead one is taken over."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from closerlook import files
from closerlook.errors import DiskFullError, StateError, StoreError
from closerlook.runs import store as store_module
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import DataSpec, ModelSpec, OptimizerSpec, Seeds, Snapshot, TrainRecipe
from closerlook.runs.store import RunFolder, Store, only_one

DATA = DataSpec(name="synthetic", n_train=60, n_validation=20, n_statistics=20, n_read=20, seed=0)


def recipe(**changed: Any) -> TrainRecipe:
    settings = {
        "data": DATA, "model": ModelSpec(name="mlp"), "optimizer": OptimizerSpec(lr=0.1), "epochs": 1,
        "batch_size": 20, "seeds": Seeds.of(0), **changed,
    }  # fmt: skip
    return TrainRecipe(**settings)


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    """A run folder as a step leaves it."""
    folder = Store(tmp_path).create(recipe())
    with folder.lock():
        folder.begin()
        files.write_json(folder.path / "results" / "outcome.json", {"diverged_at": None})
        files.write_bytes(folder.path / "checkpoints" / "step-000000.safetensors", b"weights")
        folder.note_time(time.time() - 2, 1.5)
        folder.finish()
    return folder


def test_a_folder_has_its_recipe_and_its_name(tmp_path: Path) -> None:
    made = Store(tmp_path / "runs").create(recipe())
    assert made.path == tmp_path / "runs" / run_id(recipe())
    assert made.recipe() == recipe()
    assert not made.done
    before = (made.path / "recipe.json").stat().st_mtime_ns
    assert Store(tmp_path / "runs").create(recipe()) == made
    assert (made.path / "recipe.json").stat().st_mtime_ns == before


def test_done_holds_the_checksums_of_all_that_must_be_equal_again(finished: RunFolder) -> None:
    assert finished.done
    recorded = files.read_json(finished.path / "DONE")
    names = ["recipe.json", "results/outcome.json", "checkpoints/step-000000.safetensors"]
    assert recorded == {name: files.sha256(finished.path / name) for name in names}
    assert finished.damage() == []


def test_done_is_written_after_everything_else(
    finished: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (finished.path / "DONE").unlink()
    order: list[str] = []
    write, digest = files.write_bytes, files.sha256
    noted = lambda path, data: (order.append(Path(path).name), write(path, data))[1]  # noqa: E731
    monkeypatch.setattr("closerlook.files.formats.write_bytes", noted)
    monkeypatch.setattr(files, "sha256", lambda path: (order.append("read"), digest(path))[1])
    finished.finish()
    assert order == ["read"] * 3 + ["DONE"]


def test_damage_names_what_changed_or_is_missing(finished: RunFolder) -> None:
    (finished.path / "results" / "outcome.json").write_text("{}")
    (finished.path / "checkpoints" / "step-000000.safetensors").unlink()
    assert finished.damage() == [
        "checkpoints/step-000000.safetensors is missing",
        "results/outcome.json is changed",
    ]


def test_what_says_when_and_where_is_no_damage(finished: RunFolder) -> None:
    (finished.path / "environment.json").write_text("{}")
    (finished.path / "timings.jsonl").unlink()
    (finished.path / ".state.safetensors.12.tmp").write_text("half")
    assert finished.damage() == []


def test_hidden_files_are_not_recorded(finished: RunFolder) -> None:
    (finished.path / ".noticed-by-nobody").write_text("an editor's")
    finished.finish()
    (finished.path / ".noticed-by-nobody").unlink()
    assert finished.damage() == []


@pytest.mark.parametrize("content", [b"", b'{\n "recipe.j', b"\x00" * 300, b"[]", b"{}", b"[" * 5000, b"1" * 5000])
def test_a_step_with_a_damaged_done_is_not_done(finished: RunFolder, content: bytes) -> None:
    recorded = (finished.path / "DONE").read_bytes()
    (finished.path / "DONE").write_bytes(content)
    assert not finished.done
    assert finished.damage() == []
    finished.finish()
    assert (finished.path / "DONE").read_bytes() == recorded


def test_a_damaged_recipe_is_named_and_written_anew_by_its_command(finished: RunFolder) -> None:
    stored, store = finished.path / "recipe.json", Store(finished.path.parent)
    whole = stored.read_bytes()
    for content in (whole[:30], b"", b"\xff" * 100, b"[" * 5000, b"[1]"):
        stored.write_bytes(content)
        with pytest.raises(StoreError, match=r"recipe\.json (is not readable JSON|holds no recipe).*runs verify"):
            finished.recipe()
        store.create(recipe())
        assert stored.read_bytes() == whole
    stored.unlink()
    with pytest.raises(StoreError, match=r"is no run folder: it has no recipe\.json"):
        finished.recipe()
    store.create(recipe())
    assert finished.recipe() == recipe()
    stored.unlink()
    stored.mkdir()
    with pytest.raises(StoreError, match=r"recipe\.json is in the way of .*recipe\.json"):
        store.create(recipe())


@pytest.mark.parametrize(
    ("change", "where"),
    [({"version": 99}, r"train\.version"), ({"kind": "newer"}, "newer"), ({"added": 1}, r"train\.added")],
)
def test_a_recipe_of_a_newer_version_is_refused(finished: RunFolder, change: dict[str, Any], where: str) -> None:
    stored = finished.path / "recipe.json"
    files.write_json(stored, {**files.read_json(stored), **change})
    before = stored.read_bytes()
    repair = rf"use the version that wrote it, or closerlook runs rm {finished.id}"
    for read in (finished.recipe, lambda: Store(finished.path.parent).create(recipe())):
        with pytest.raises(StoreError, match=rf"recipe\.json is not a recipe of this version.*{where}.*{repair}"):
            read()
    assert stored.read_bytes() == before


def test_another_recipe_with_the_same_short_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, short = Store(tmp_path), run_id(recipe())
    monkeypatch.setattr(store_module, "run_id", lambda _: short)
    store.create(recipe())
    with pytest.raises(StoreError, match="another recipe with the same short hash; move that folder away"):
        store.create(recipe(epochs=2))
    assert store.create(recipe()).recipe() == recipe()


def test_runs_are_listed_by_name_and_removed(finished: RunFolder, tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = store.create(recipe(start=Snapshot(run="train-00000000", step=1)))
    (tmp_path / "study-restarts-smoke-01234567").mkdir()
    (tmp_path / "study-restarts-smoke-01234567" / "recipe.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    (tmp_path / "train-begun").mkdir()
    (tmp_path / "train-begun" / "LOCK").touch()
    assert [run.id for run in store.runs()] == sorted([finished.id, other.id, "train-begun"])
    store.remove("train-begun")
    store.remove(other.id)
    assert [run.id for run in store.runs()] == [finished.id]
    with pytest.raises(StoreError, match="no run train-nothing"):
        store.remove("train-nothing")
    assert Store(tmp_path / "nowhere").runs() == []


def test_the_seconds_of_all_attempts_are_summed(finished: RunFolder) -> None:
    finished.note_time(time.time() - 3, 0.25)
    wall, cpu = finished.seconds()
    assert wall == pytest.approx(5, abs=0.5)
    assert cpu == 1.75
    for content in (b"", b"\x00" * 20, b"[1]\n", b'{"wall_s": "long"}\n', b"{}\n"):
        (finished.path / "timings.jsonl").write_bytes(content)
        assert finished.seconds() == (0, 0)
    (finished.path / "timings.jsonl").unlink()
    assert finished.seconds() == (0, 0)


def test_a_result_is_read_by_name(finished: RunFolder) -> None:
    assert finished.result("outcome") == {"diverged_at": None}
    with pytest.raises(StoreError, match=r"no .*profile\.json"):
        finished.result("profile")


@pytest.mark.parametrize("content", [b"", b"{", b'{\n "diverged_at": 3\n}\n', None])
def test_a_result_that_was_changed_is_not_used(finished: RunFolder, content: bytes | None) -> None:
    path = finished.path / "results" / "outcome.json"
    path.unlink() if content is None else path.write_bytes(content)
    repair = rf"repair: closerlook runs rm {finished.id} --runs .*, then the command that made it"
    with pytest.raises(StoreError, match=rf"outcome\.json is (changed|missing); {repair}"):
        finished.result("outcome")


def test_the_journal_is_read_whole_or_not_at_all(finished: RunFolder) -> None:
    path = finished.path / "metrics.jsonl"
    assert finished.journal() == []
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert finished.journal() == [{"step": 1}, {"step": 2}]
    finished.finish()
    path.write_text('{"step": 1}\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl is changed; repair: closerlook runs rm"):
        finished.journal()
    (finished.path / "DONE").unlink()
    for content in ("{", "3", "[1, 2]", "[" * 5000):
        path.write_text(content)
        with pytest.raises(StoreError, match=r"metrics\.jsonl cannot be read"):
            finished.journal()


def test_what_cannot_be_read_is_damage(finished: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    (finished.path / "checkpoints" / "step-000000.safetensors").unlink()
    (finished.path / "checkpoints" / "step-000000.safetensors").mkdir()
    assert finished.damage() == ["checkpoints/step-000000.safetensors cannot be read (Is a directory)"]
    monkeypatch.setattr(files, "sha256", refuse)
    assert finished.damage() == [
        f"{name} cannot be read (Permission denied)"
        for name in ("checkpoints/step-000000.safetensors", "recipe.json", "results/outcome.json")
    ]


def test_a_new_attempt_clears_half_written_files(finished: RunFolder) -> None:
    leftovers = [finished.path / ".DONE.12.tmp", finished.path / "results" / ".outcome.json.12.tmp"]
    for path in leftovers:
        path.write_text("half")
    finished.begin()
    assert not any(path.exists() for path in leftovers)
    assert finished.damage() == []


def test_going_on_elsewhere_is_marked_and_said(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    path = finished.path / "environment.json"
    here = files.read_json(path)
    assert here["earlier"] == []
    there = {**here, "packages": {**here["packages"], "torch": "1.0"}}

    files.write_json(path, there)
    finished.begin()  # without a state everything is made again: nothing is mixed
    assert files.read_json(path) == here
    assert capsys.readouterr().err == ""

    files.write_json(path, {**there, "cores": 1000})
    (finished.path / "state.safetensors").write_bytes(b"")
    for _ in range(2):
        finished.begin()
    assert files.read_json(path)["earlier"] == [
        {name: value for name, value in {**there, "cores": 1000}.items() if name != "earlier"}
    ]
    assert capsys.readouterr().err == f"{finished.id} goes on in another environment; its last bits may differ\n"

    for content in (b"", b"[1, 2]", b"\x00" * 9):  # where it was made decides nothing
        path.write_bytes(content)
        assert finished.made_in() is None
        finished.begin()
        assert finished.made_in() == here


def test_a_state_of_no_use_is_set_aside(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (finished.path / "state.safetensors").write_bytes(b"half")
    finished.start_over(StateError("state: it is half"))
    assert not (finished.path / "state.safetensors").exists()
    assert (finished.path / ".state.safetensors.unreadable").read_bytes() == b"half"
    said = f"{finished.id} starts from its beginning, its state is set aside: state: it is half\n"
    assert capsys.readouterr().err == said


def test_a_lock_is_waited_for(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[str] = []

    def second() -> None:
        with finished.lock():
            events.append("second")

    with finished.lock():
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        events.append("first")
    thread.join(5)
    assert events == ["first", "second"]
    assert capsys.readouterr().err == f"{finished.path} is in the hands of process {os.getpid()}; waiting for it\n"
    assert (finished.path / "LOCK").read_text() == ""


def test_a_full_disk_takes_no_lock_away(finished: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with finished.lock():
        pass
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(DiskFullError, match=r"the disk of .* is full"):
        finished.lock().__enter__()


def test_a_run_in_work_is_not_removed_under_its_process(finished: RunFolder) -> None:
    with finished.lock():
        thread = threading.Thread(target=Store(finished.path.parent).remove, args=(finished.id,))
        thread.start()
        time.sleep(0.1)
        assert finished.done
    thread.join(5)
    assert not finished.path.exists()


def test_one_command_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "study" / "LOCK"
    with only_one(path):
        with pytest.raises(StoreError, match=rf"another command works on .*study \(process {os.getpid()}\)"):
            only_one(path).__enter__()
        assert path.read_text() == str(os.getpid())
    assert path.read_text() == ""
    with pytest.raises(KeyError), only_one(path):
        raise KeyError
    with only_one(path):
        pass


def test_the_next_command_clears_what_a_killed_one_left_half_written(tmp_path: Path) -> None:
    leftovers = [tmp_path / ".report.html.12.tmp", tmp_path / "figures" / ".path.svg.12.tmp"]
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    with only_one(tmp_path / "LOCK"):
        with pytest.raises(StoreError):
            only_one(tmp_path / "LOCK").__enter__()
        assert not any(path.exists() for path in leftovers)


HOLDER = """
import sys, time
from pathlib import Path
from closerlook.runs.store import RunFolder, only_one
with only_one(Path(sys.argv[1])), RunFolder(Path(sys.argv[2])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_locks_of_a_killed_process_are_taken_over(finished: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "study" / "LOCK"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(finished.path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=rf"process {holder.pid}"):
            only_one(path).__enter__()
        got: list[str] = []

        def wait_for_it() -> None:
            with finished.lock():
                got.append("lock")

        thread = threading.Thread(target=wait_for_it)
        thread.start()
        time.sleep(0.1)
        assert got == []
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        thread.join(5)
        assert got == ["lock"]
        assert path.read_text() == str(holder.pid)  # it could not tidy up
        with only_one(path):
            assert path.read_text() == str(os.getpid())


def test_a_recipe_file_is_readable_json(finished: RunFolder) -> None:
    stored = json.loads((finished.path / "recipe.json").read_text())
    assert (stored["kind"], stored["version"], stored["epochs"]) == ("train", recipe().version, 1)

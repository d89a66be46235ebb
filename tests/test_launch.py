"""The graph of steps: order, reuse, failures, missing points, processes that are killed and processes left behind."""

import errno
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from closerlook.errors import StepFailedError, UsageError
from closerlook.launch import Event, Graph, Progress, launch, pool
from closerlook.launch.pool import InThisProcess
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import (
    Average,
    BarriersRecipe,
    Bend,
    ConnectRecipe,
    DataSpec,
    ModelSpec,
    OptimizerSpec,
    PredictRecipe,
    ProfileRecipe,
    Recipe,
    Seeds,
    Snapshot,
    SurfaceRecipe,
    TrainRecipe,
    inputs_of,
)
from closerlook.runs.store import Store
from closerlook.steps import help_step

DATA = DataSpec(name="synthetic", n_train=60, n_validation=20, n_statistics=20, n_read=20, n_test=20, seed=0)
MODEL = ModelSpec(name="mlp", options={"hidden": (7,)})


def training(**changed: Any) -> TrainRecipe:
    settings = {
        "data": DATA, "model": MODEL, "optimizer": OptimizerSpec(lr=0.1), "epochs": 2, "batch_size": 20,
        "seeds": Seeds.of(0), "forks": ("1ep",), "snapshots": ("1ep",), **changed,
    }  # fmt: skip
    return TrainRecipe(**settings)


def graph(trunk: TrainRecipe, curve_lr: float = 0.1) -> dict[str, Recipe]:
    """A trunk, and everything that can stand on it; in an order in which nothing could be done one by one."""
    a, b = Snapshot(run=run_id(trunk), step=3), Snapshot(run=run_id(trunk), step=6)
    other = trunk.seeds.model_copy(update={"order": 9})
    branch = trunk.model_copy(update={"start": a, "epochs": 1, "snapshots": (), "forks": (), "seeds": other})
    end = Snapshot(run=run_id(branch), step=3)
    curve = ConnectRecipe(
        data=DATA, model=trunk.model, a=b, b=end, optimizer=OptimizerSpec(lr=curve_lr), epochs=1, batch_size=20, seed=0
    )
    points = (b, Bend(run=run_id(curve)), end)
    return {
        "predict": PredictRecipe(data=DATA, model=trunk.model, points={"a": a, "mean": Average(of=(b, end))}),
        "barriers": BarriersRecipe(data=DATA, model=trunk.model, points={"a": a, "end": end}, t=3),
        "plane": SurfaceRecipe(data=DATA, model=trunk.model, points=points, grid=(2, 2)),
        "along": ProfileRecipe(data=DATA, model=trunk.model, points=points, curve="polychain", t=3),
        "curve": curve,
        "branch": branch,
        "trunk": trunk,
    }


def contents(store: Store) -> dict[str, bytes]:
    """Every file but those that say when and where it was made."""
    return {
        str(path.relative_to(store.root)): path.read_bytes()
        for path in sorted(store.root.rglob("*"))
        if path.is_file() and path.name not in ("timings.jsonl", "environment.json")
    }


def finish(store: Store, recipes: dict[str, Recipe], executor: Executor | None = None, jobs: int = 1) -> list[Event]:
    events: list[Event] = []
    launch(list(recipes.values()), store, executor or InThisProcess(), jobs, events.append)
    return events


def told(events: list[Event], recipes: dict[str, Recipe]) -> dict[str, str]:
    names = {run_id(recipe): role for role, recipe in recipes.items()}
    return {names[event.run]: event.outcome for event in events}


# Order and reuse


def test_inputs_come_first_and_each_recipe_once(tmp_path: Path) -> None:
    recipes = graph(training())
    events = finish(Store(tmp_path), {**recipes, "again": training()})
    order = list(told(events, recipes))
    assert sorted(order) == sorted(recipes)
    for role, recipe in recipes.items():
        needs = [other for other in recipes if run_id(recipes[other]) in inputs_of(recipe)]
        assert all(order.index(need) < order.index(role) for need in needs), role
    assert [event.share for event in events] == sorted(event.share for event in events)
    assert events[-1].share == pytest.approx(1)
    assert all(event.recipe == recipes[role] for event, role in zip(events, order, strict=True))


def test_the_longest_way_to_the_end_goes_first(tmp_path: Path) -> None:
    short, long = training(epochs=1, seeds=Seeds.of(1), forks=()), training()
    recipes: dict[str, Recipe] = {"short": short, **graph(long)}
    found = Graph(list(recipes.values()))
    assert found.urgency[run_id(long)] > found.urgency[run_id(short)]

    def way(run: str) -> float:
        users = [run_id(recipe) for recipe in recipes.values() if run in inputs_of(recipe)]
        return found.costs[run] + max(map(way, users), default=0.0)

    assert found.urgency == pytest.approx({run: way(run) for run in found.nodes})
    assert next(iter(told(finish(Store(tmp_path), recipes), recipes))) == "trunk"


def test_finished_work_is_reused(tmp_path: Path) -> None:
    store, recipes = Store(tmp_path), graph(training())
    finish(store, {"trunk": recipes["trunk"]})
    first = finish(store, recipes)
    assert [role for role, outcome in told(first, recipes).items() if outcome == "reused"] == ["trunk"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = finish(store, recipes)
    assert set(told(second, recipes).values()) == {"reused"}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_inputs_may_be_finished_before_and_must_be_somewhere(tmp_path: Path) -> None:
    store, recipes = Store(tmp_path), graph(training())
    trunk = {"trunk": recipes.pop("trunk")}
    with pytest.raises(UsageError, match=rf"needs {run_id(training())}, which is not finished in .*; add its recipe"):
        finish(store, recipes)
    assert not list(tmp_path.iterdir())
    finish(store, trunk)
    assert set(told(finish(store, recipes), recipes).values()) == {"done"}
    # What is done itself needs its inputs no more.
    store.remove(run_id(trunk["trunk"]))
    assert set(told(finish(store, recipes), recipes).values()) == {"reused"}


def test_no_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        finish(Store(tmp_path), graph(training()), jobs=0)


# Failures


def test_a_failing_step_stops_only_what_needs_it_and_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bad = training(model=ModelSpec(name="mlp", options={"wdith": 3}))
    good, standing = graph(training()), graph(bad)
    recipes: dict[str, Recipe] = {**{f"bad {role}": recipe for role, recipe in standing.items()}, **good}
    events: list[Event] = []
    with pytest.raises(StepFailedError) as caught:
        launch(list(recipes.values()), store, InThisProcess(), 1, events.append)
    assert str(caught.value).splitlines() == [
        "steps failed: 1; not started: 6; finished work is kept",
        f"  {run_id(bad)}: UsageError: mlp has no option wdith; it takes in_features, hidden, classes, init",
    ]
    assert isinstance(caught.value.__cause__, UsageError)
    assert told(events, recipes) == {"bad trunk": "failed", **dict.fromkeys(good, "done")}
    assert next(event.message for event in events if event.outcome == "failed") in str(caught.value)
    assert not any(store.folder(recipe).done for recipe in standing.values())


def test_a_folder_of_another_recipe_fails_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    spoiled, good = training(seeds=Seeds.of(3)), training()
    path = store.create(spoiled).path / "recipe.json"
    path.write_text(re.sub(r'"version": \d+', '"version": 99', path.read_text()))
    with pytest.raises(StepFailedError, match=rf"{run_id(spoiled)}: StoreError: .*use the version that wrote it, or"):
        finish(store, {"spoiled": spoiled, "good": good})
    assert store.folder(good).done
    assert not store.folder(spoiled).done


def test_an_interrupt_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("closerlook.launch.graph.run_step", interrupt)
    with pytest.raises(KeyboardInterrupt), pool(1) as executor:
        finish(Store(tmp_path), graph(training()), executor)


class Broken(Executor):
    """Takes `good` steps, then is as a process pool that lost a process."""

    def __init__(self, good: int, at_submit: bool) -> None:
        self.good, self.at_submit = good, at_submit

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.good -= 1
        if self.good >= 0:
            return InThisProcess().submit(fn, *args, **kwargs)
        if self.at_submit:
            raise BrokenProcessPool("it was terminated abruptly")
        future: Future[Any] = Future()
        future.set_exception(BrokenExecutor("it was terminated abruptly"))
        return future


@pytest.mark.parametrize("at_submit", [True, False])
@pytest.mark.parametrize("good", [0, 2, 4])
def test_a_broken_executor_ends_the_work_with_a_clear_error(at_submit: bool, good: int, tmp_path: Path) -> None:
    store, recipes = Store(tmp_path), graph(training())
    events: list[Event] = []
    with pytest.raises(StepFailedError, match=r"ended from outside.*start the command again") as caught:
        launch(list(recipes.values()), store, Broken(good, at_submit), 2, events.append)
    outcomes = list(told(events, recipes).values())
    assert outcomes.count("done") == good
    assert outcomes.count("failed") <= 2
    assert str(caught.value).startswith(f"steps failed: {outcomes.count('failed')}; not started: {7 - len(outcomes)};")
    assert set(told(finish(store, recipes), recipes).values()) <= {"reused", "done"}


class WithoutHelpers(InThisProcess):
    """Is broken whenever a helper is asked for."""

    asked = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if fn is help_step:
            self.asked += 1
            raise BrokenProcessPool("it was terminated abruptly")
        return super().submit(fn, *args, **kwargs)


def test_a_helper_that_cannot_be_had_is_no_failure(tmp_path: Path) -> None:
    recipes, executor = graph(training()), WithoutHelpers()
    assert set(told(finish(Store(tmp_path), recipes, executor, jobs=3), recipes).values()) == {"done"}
    assert executor.asked > 0


def test_a_full_disk_ends_the_work_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store, two = Store(tmp_path), {f"{seed}": training(seeds=Seeds.of(seed)) for seed in (0, 1)}
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StepFailedError, match=r"failed: 1; not started: 1;.*\n.*DiskFullError: the disk of "):
            finish(store, two)
    assert set(told(finish(store, two), two).values()) == {"done"}


# Divergence


def test_what_stands_on_a_diverged_run_is_missing_and_no_failure(tmp_path: Path) -> None:
    store, good = Store(tmp_path), graph(training())
    recipes = graph(training(optimizer=OptimizerSpec(lr=1e25)))
    both: dict[str, Recipe] = {**{f"good {role}": recipe for role, recipe in good.items()}, **recipes}
    assert set(told(finish(store, both), both).values()) == {"done"}
    assert store.folder(recipes["trunk"]).result("outcome")["diverged_at"] in (1, 2)
    reasons = {role: store.folder(recipe).path / "results" / "missing.json" for role, recipe in recipes.items()}
    assert [role for role in recipes if reasons[role].exists()] == [role for role in recipes if role != "trunk"]
    trunk, branch, curve = (run_id(recipes[role]) for role in ("trunk", "branch", "curve"))
    told_by = {role: store.folder(recipes[role]).result("missing")["reason"] for role in recipes if role != "trunk"}
    assert told_by["branch"] == f"{trunk} has no fork at step 3: it diverged before"
    assert told_by["curve"] == told_by["along"] == f"{trunk} has no step at step 6: it diverged before"
    assert told_by["barriers"] == f"{trunk} has no step at step 3: it diverged before"
    late = ProfileRecipe(data=DATA, model=MODEL, points=(Bend(run=curve), Snapshot(run=branch, step=3)), t=3)
    finish(store, {"late": late})
    assert store.folder(late).result("missing")["reason"].startswith(f"{curve} has no bend")
    assert not any((store.folder(recipe).path / "results" / "missing.json").exists() for recipe in good.values())


def test_a_curve_that_diverged_has_no_bend(tmp_path: Path) -> None:
    store, recipes = Store(tmp_path), graph(training(), curve_lr=1e25)
    assert set(told(finish(store, recipes), recipes).values()) == {"done"}
    assert store.folder(recipes["curve"]).result("curve") == {"diverged": True, "length": None}
    assert not (store.folder(recipes["curve"]).path / "results" / "curve.safetensors").exists()
    missing = [r for r in recipes if (store.folder(recipes[r]).path / "results" / "missing.json").exists()]
    assert missing == ["plane", "along"]


# Processes

USERS = """
import os, signal
from pathlib import Path
import torch
from torch import nn

def network():
    if not Path("be-gentle").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))

def data():
    part = (torch.ones(60, 1, 2, 2), torch.arange(60) % 2)
    return part, part, part
"""


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the worker processes are started, so that they find the user's module."""
    folder = tmp_path_factory.mktemp("users")
    (folder / "users_deadly_network.py").write_text(USERS)
    return folder


@pytest.fixture(scope="module")
def two_workers(users_folder: Path) -> Iterator[Callable[[], Executor]]:
    """A pool of two processes, made anew when it was broken."""
    held: list[Executor] = []
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patched:
        patched.chdir(users_folder)

        def get() -> Executor:
            if not held or getattr(held[-1], "_broken", False):
                held.append(stack.enter_context(pool(2)))
            return held[-1]

        yield get


def test_processes_give_the_bytes_of_this_process(two_workers: Callable[[], Executor], tmp_path: Path) -> None:
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    recipes = {**graph(training()), "other": training(seeds=Seeds.of(1), model=ModelSpec(name="mlp"))}
    finish(one, recipes)
    assert set(told(finish(two, recipes, two_workers(), jobs=2), recipes).values()) == {"done"}
    assert contents(one) == contents(two)
    assert len(contents(one)) > 30


def test_a_worker_that_is_killed_gives_a_clear_error_and_the_work_goes_on_next_time(
    two_workers: Callable[[], Executor], users_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(users_folder)
    monkeypatch.syspath_prepend(str(users_folder))
    store = Store(tmp_path)
    data = DATA.model_copy(update={"name": "users_deadly_network:data", "n_validation": 0, "n_train": 40})
    deadly = training(data=data, model=ModelSpec(name="users_deadly_network:network"), batch_size=10)
    first = {"first": training(seeds=Seeds.of(2))}
    finish(store, first, two_workers(), jobs=2)
    recipes = {**first, "deadly": deadly, **graph(training(seeds=Seeds.of(4)))}
    with pytest.raises(StepFailedError, match=rf"{run_id(deadly)}: its process was ended from outside"):
        finish(store, recipes, two_workers(), jobs=2)
    assert not store.folder(deadly).done
    assert store.folder(first["first"]).done
    (users_folder / "be-gentle").touch()
    events = told(finish(store, recipes), recipes)
    assert events["first"] == "reused"
    assert set(events.values()) <= {"reused", "done"}
    assert store.folder(deadly).damage() == []


def test_an_exception_ends_what_is_running() -> None:
    begun: list[Future[None]] = []

    def interrupted() -> None:
        with pool(2) as executor:
            assert executor.submit(abs, -1).result() == 1
            begun.append(executor.submit(time.sleep, 600))
            while not begun[0].running():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert isinstance(begun[0].exception(), BrokenExecutor)


PARENT = """
import sys, time
from closerlook.launch import pool
if __name__ == "__main__":
    with pool(2) as executor:
        executor.submit(time.sleep, 0).result()
        executor.submit(time.sleep, 60)
        print(*executor._processes, flush=True)
        time.sleep(60)
"""


def alive(process: int) -> bool:
    try:
        # A process that ended and was not waited for by its new parent is no live one.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(number) for number in parent.stdout.readline().split()]
        try:
            assert workers
            assert all(map(alive, workers))
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            until = time.monotonic() + 10
            while any(map(alive, workers)) and time.monotonic() < until:
                time.sleep(0.02)
            assert not any(map(alive, workers))
        finally:
            parent.kill()
            for worker in filter(alive, workers):
                os.kill(worker, signal.SIGKILL)


# Progress


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_for_every_step(tmp_path: Path) -> None:
    store, recipes = Store(tmp_path), graph(training())
    finish(store, {"trunk": recipes["trunk"]})
    stream = io.StringIO()
    bad = training(model=ModelSpec(name="mlp", options={"wdith": 3}))
    with pytest.raises(StepFailedError):
        launch([*recipes.values(), bad], store, InThisProcess(), 1, Progress(8, stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 8
    assert lines[0] == f"[1/8] {run_id(recipes['trunk'])} reused"
    done = [line for line in lines if " done" in line]
    assert len(done) == 6
    assert all(line.endswith(" s remain") for line in done)
    (failed,) = [line for line in lines if f" {run_id(bad)} failed" in line]
    assert "UsageError: mlp has no option wdith" in failed


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    stream = Terminal()
    progress = Progress(7, stream)
    launch(list(graph(training()).values()), Store(tmp_path), InThisProcess(), 1, progress)
    progress.close()
    text = stream.getvalue()
    assert "100%" in text
    assert "[7/7]" in text
    assert text.count("\n") == 1

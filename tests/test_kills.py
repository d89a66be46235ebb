"""A graph of steps whose processes are killed at random moments leaves the bytes of one that nobody disturbed."""

import importlib.util
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from closerlook import files
from closerlook.cli import main
from closerlook.runs.store import Store

# Forks a process for every line on stdin, so that everything is imported once. Only the way in which workers start
# differs from a command: they are forked as well.
ZYGOTE = """
import multiprocessing, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from closerlook.launch import launch, pool
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import *
from closerlook.runs.store import Store
from closerlook.schedules import Restarts

context = multiprocessing.get_context
multiprocessing.get_context = lambda _: context("fork")

data = DataSpec(
    name="synthetic", resolution=8, n_train=200, n_validation=50, n_statistics=50, n_read=50, n_test=50, seed=0
)
model = ModelSpec(name="vgg11_bn", options={"width": 0.0625, "init": "he"})

def recipes():
    ends = {}
    for seed in (0, 1):
        trunk = TrainRecipe(
            data=data, model=model, optimizer=OptimizerSpec(lr=0.1), schedule=Restarts(first="4ep"), epochs=12,
            batch_size=20, augment=True, seeds=Seeds.of(seed), snapshots=("4ep", "65it"), forks=("4ep",),
        )
        a, b = Snapshot(run=run_id(trunk), step=40), Snapshot(run=run_id(trunk), step=120)
        ends[f"{seed}"] = b
        other = trunk.seeds.model_copy(update={"order": 9})
        branch = trunk.model_copy(update={"start": a, "epochs": 6, "snapshots": (), "forks": (), "seeds": other})
        curve = ConnectRecipe(
            data=data, model=model, a=a, b=b, optimizer=OptimizerSpec(lr=0.05), epochs=4, batch_size=20, seed=seed
        )
        points = (a, Bend(run=run_id(curve)), b)
        yield from (trunk, branch, curve)
        yield ProfileRecipe(data=data, model=model, curve="polychain", points=points, t=11)
        yield SurfaceRecipe(data=data, model=model, points=points, grid=(4, 4))
    # Diverges: what it leaves must not depend on when it was stopped either.
    bad = trunk.model_copy(update={"optimizer": OptimizerSpec(lr=1e25), "snapshots": (), "forks": ()})
    yield bad
    yield BarriersRecipe(data=data, model=model, points=ends, t=5)
    yield PredictRecipe(data=data, model=model, points={**ends, "bad": Snapshot(run=run_id(bad), step=120)})

def work(root):
    with pool(2) as executor:
        launch(list(recipes()), Store(Path(root)), executor, 2, lambda event: None)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(line.strip())
            status = 0
        finally:
            os._exit(status)
    os.setpgid(child, child)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Zygote:
    """Starts the work on a folder in a process group of its own, and says how it ended."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def start(self, root: Path) -> int:
        assert self.process.stdin is not None
        print(root, file=self.process.stdin, flush=True)
        return self._number()

    def status(self) -> int:
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    environment = {**os.environ, "CLOSERLOOK_CHECKPOINT_SECONDS": "0.05"}
    with subprocess.Popen(
        [sys.executable, "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Zygote(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def kills() -> ModuleType:
    """The benchmark that does the same with a whole command."""
    path = Path(__file__).parents[1] / "benchmarks" / "kills.py"
    spec = importlib.util.spec_from_file_location("kills", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module
    spec.loader.exec_module(module)
    return module


def half_done(root: Path) -> list[Path]:
    """Runs that would go on from a state."""
    return [path.parent for path in root.glob("*/state.safetensors") if not (path.parent / "DONE").exists()]


def wait_for_half_done(root: Path, leader: int) -> None:
    until = time.monotonic() + 60  # a busy machine may be slow to reach its first state
    while not half_done(root) and time.monotonic() < until and Path(f"/proc/{leader}").exists():
        time.sleep(0.002)


def kill(leader: int) -> None:
    with suppress(ProcessLookupError):  # it may just have ended
        os.killpg(leader, signal.SIGKILL)


def test_killed_at_random_moments(zygote: Zygote, kills: ModuleType, tmp_path: Path) -> None:
    whole, parts, moments = tmp_path / "whole", tmp_path / "parts", random.Random(0)
    zygote.start(whole)
    assert zygote.status() == 0
    killed = resumable = 0
    for attempt in range(6):
        leader = zygote.start(parts)
        if attempt % 2:
            wait_for_half_done(parts, leader)
        else:
            time.sleep(moments.uniform(0, 0.3))
        kill(leader)
        if zygote.status() == 0:
            break
        killed += 1
        resumable += bool(half_done(parts))
    else:
        zygote.start(parts)
        assert zygote.status() == 0
    assert killed >= 3
    assert resumable >= 2
    assert kills.differences(whole, parts) == []
    runs = Store(parts).runs()
    assert len(runs) == 13
    assert all(run.done and run.damage() == [] for run in runs)
    assert sorted(path.name for path in parts.rglob(".*")) == []
    assert sum((run.path / "results" / "missing.json").exists() for run in runs) == 1


def tree(root: Path, **changed: str | None) -> Path:
    """A folder as a study leaves it; `changed` replaces a file, or takes it away."""
    page = '<p>1</p>\n<section id="cost">\n<p>{0}</p>\n</section><section id="environment">{0}</section><p>{1}</p>'
    content: dict[str, str | None] = {
        "train-1/recipe.json": "{}", "train-1/DONE": "{}", "train-1/timings.jsonl": root.name, "train-1/LOCK": "",
        "train-1/environment.json": root.name, "study-1/report.html": page.format(root.name, "same"), **changed,
    }  # fmt: skip
    for name, text in content.items():
        if text is not None:
            files.write_bytes(root / name, text.encode())
    return root


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, []),
        ({"train-1/recipe.json": "{ }"}, ["train-1/recipe.json is different"]),
        ({"train-1/DONE": None}, ["train-1/DONE is missing"]),
        ({"train-1/.state.safetensors.12.tmp": "half"}, ["train-1/.state.safetensors.12.tmp is too much"]),
        ({"study-1/report.html": "<p>1</p>"}, ["study-1/report.html is different"]),
        ({"train-1/timings.jsonl": None}, ["train-1/timings.jsonl is missing"]),
    ],
)
def test_differences_are_found_and_times_and_places_are_none(
    kills: ModuleType, tmp_path: Path, changed: dict[str, str | None], found: list[str]
) -> None:
    assert kills.differences(tree(tmp_path / "whole"), tree(tmp_path / "parts", **changed)) == found


WRITES = """
import pathlib, sys, time
root = pathlib.Path(sys.argv[1])
root.mkdir(exist_ok=True)
for number in range(8):
    path = root / f"{number}"
    if not path.exists():
        time.sleep(0.05)
        path.write_text(SPOILED)
"""


@pytest.mark.parametrize(("text", "equal"), [("'same'", True), ("str(time.time())", False)])
def test_the_benchmark_counts_kills_and_tells_equal_from_different(
    kills: ModuleType, tmp_path: Path, text: str, equal: bool
) -> None:
    script, out = tmp_path / "writes.py", tmp_path / "kills.json"
    script.write_text(WRITES.replace("SPOILED", text))
    arguments = ["--kills", "4", "--per-round", "2", "--command", f"{sys.executable} {script} {{runs}}"]
    assert kills.main([*arguments, "--out", str(out)]) == (0 if equal else 1)
    record: dict[str, Any] = json.loads(out.read_text())
    assert record["kills"] == 4
    (summary,) = record["commands"].values()
    assert summary["kills"] == 4
    assert summary["rounds"] >= 2
    assert summary["files"] == 8
    assert bool(summary["different"]) != equal
    assert sum(summary["killed"].values()) == 4
    assert summary["left_behind"] == 0


def test_the_kills_are_shared_out_among_the_commands(
    kills: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(killer: Any, number: int, per_round: int, spread: float, root: Path) -> dict[str, Any]:
        words = [word.format(runs=root, given=killer.given) for word in shlex.split(killer.command)]
        assert all(Path(word).exists() for word in words if word.endswith(".safetensors"))
        assert main([*words[1:], "--dry-run"]) == 0
        return {"killed": number, "different": {}, "left_behind": 0}

    monkeypatch.setattr(kills, "measure", measure)
    assert kills.main(["--out", str(tmp_path / "kills.json")]) == 0
    record = json.loads((tmp_path / "kills.json").read_text())
    assert {name: each["killed"] for name, each in record["commands"].items()} == {
        "study": 17, "path": 17, "surface": 16,
    }  # fmt: skip

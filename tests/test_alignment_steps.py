"""Alignment as a step, as a point of other recipes, and as a command."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

import closerlook as cl
from closerlook.cli import main
from closerlook.landscape import Profile
from closerlook.launch import launch, pool
from closerlook.models import build
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import (
    Aligned,
    AlignRecipe,
    DataSpec,
    ModelSpec,
    OptimizerSpec,
    ProfileRecipe,
    Recipe,
    Seeds,
    Snapshot,
    TrainRecipe,
    inputs_of,
)
from closerlook.runs.store import RunFolder, Store
from closerlook.steps.cost import cost
from closerlook.steps.points import Resolver
from closerlook.steps.setting import fixed_batches, network, parts
from conftest import digit_batches

DATA = DataSpec(name="digits", n_train=300, n_validation=0, n_statistics=80, n_read=120, seed=100)
MODEL = ModelSpec(name="mlp", options={"hidden": (16, 12)})


def training(seed: int, lr: float = 0.05) -> TrainRecipe:
    return TrainRecipe(
        data=DATA, model=MODEL, optimizer=OptimizerSpec(lr=lr), epochs=4, batch_size=50, seeds=Seeds.of(seed),
        snapshots=("4ep",),
    )  # fmt: skip


def end(recipe: TrainRecipe) -> Snapshot:
    return Snapshot(run=run_id(recipe), step=24)


RUNS = training(100), training(101)
WEIGHTS = AlignRecipe(data=DATA, model=MODEL, a=end(RUNS[0]), b=end(RUNS[1]))
ACTIVATIONS = WEIGHTS.model_copy(update={"method": "activations", "batch_size": 30})
POINT = Aligned(run=run_id(WEIGHTS))
LINE = ProfileRecipe(data=DATA, model=MODEL, points=(WEIGHTS.a, POINT), t=3)
REPAIRED = LINE.model_copy(update={"repair": True})


def finish(store: Store, *recipes: Recipe) -> list[RunFolder]:
    with pool(1) as executor:
        launch(recipes, store, executor, 1, lambda event: None)
    return [store.folder(recipe) for recipe in recipes]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("runs"))
    finish(made, REPAIRED, LINE, ACTIVATIONS, WEIGHTS, *RUNS)  # whatever the order, a step waits for its inputs
    return made


def test_names_are_pinned() -> None:
    assert run_id(WEIGHTS) == "align-aefdff2d"
    assert run_id(LINE) == "profile-15fa8f22"
    assert inputs_of(LINE) == (end(RUNS[0]).run, run_id(WEIGHTS))
    assert len({run_id(recipe) for recipe in (WEIGHTS, ACTIVATIONS, LINE, REPAIRED)}) == 4


@pytest.mark.parametrize("recipe", [WEIGHTS, ACTIVATIONS], ids=["weights", "activations"])
def test_a_step_is_the_library_on_the_images_for_statistics(recipe: AlignRecipe, store: Store) -> None:
    folder, model = store.folder(recipe), network(MODEL, DATA, seed=0)
    find = Resolver(model, folder)
    loader = fixed_batches(parts(DATA).statistics, recipe.batch_size)
    wanted = cl.alignment(model, find.point(recipe.a), find.point(recipe.b), recipe.method, loader=loader)
    assert folder.damage() == []
    assert folder.result("align") == wanted.to_dict()
    assert torch.equal(find.point(Aligned(run=folder.id)).vector, wanted.point.vector)


def test_the_aligned_point_is_read_like_any_other(store: Store) -> None:
    found = Profile.from_dict(store.folder(LINE).result("profile"))
    find = Resolver(network(MODEL, DATA, seed=0), store.folder(LINE))
    segment = cl.line(find.point(WEIGHTS.a), find.point(POINT))
    splits = {"train": fixed_batches(parts(DATA).read, 500), "test": fixed_batches(parts(DATA).test, 500)}
    assert found.metric("test", "loss").tolist() == cl.profile(
        find.model, segment, splits, 3
    ).metric("test", "loss").tolist()  # fmt: skip
    repaired = Profile.from_dict(store.folder(REPAIRED).result("profile"))
    images = fixed_batches(parts(DATA).statistics, 500)
    middle = cl.loaded(find.model, cl.repair(find.model, *segment.points, 0.5, images))
    assert repaired.metric("test", "loss")[1] == pytest.approx(cl.evaluate(middle, splits["test"]).loss, abs=1e-6)
    assert np.allclose(repaired.metric("train", "loss")[::2], found.metric("train", "loss")[::2], atol=1e-6)


def test_what_a_step_costs(store: Store, tmp_path: Path) -> None:
    seen: list[int] = []

    def look(module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, torch.nn.Flatten):
            seen.append(len(inputs[0]))

    for needed in map(run_id, RUNS):
        (tmp_path / needed).symlink_to(store.root / needed)
    for recipe in (WEIGHTS, ACTIVATIONS):
        handle = torch.nn.modules.module.register_module_forward_hook(look)
        finish(Store(tmp_path), recipe)
        handle.remove()
        assert cost(recipe).images == sum(seen)
        seen.clear()
    assert cost(REPAIRED).images > cost(LINE).images


def test_a_missing_end_is_a_result(tmp_path: Path) -> None:
    store, diverged = Store(tmp_path), training(7, lr=1e12)
    made = WEIGHTS.model_copy(update={"b": end(diverged)})
    line = LINE.model_copy(update={"points": (WEIGHTS.a, Aligned(run=run_id(made)))})
    *_, folder, read = finish(store, RUNS[0], diverged, made, line)
    assert "diverged" in folder.result("missing")["reason"]
    assert f"{folder.id} aligned nothing" in read.result("missing")["reason"]
    assert not (folder.path / "results" / "aligned.safetensors").exists()


def test_only_a_segment_is_repaired() -> None:
    with pytest.raises(ValidationError, match="a line of two points"):
        ProfileRecipe(data=DATA, model=MODEL, points=(WEIGHTS.a, POINT, WEIGHTS.b), curve="polychain", repair=True)


SETTINGS: dict[str, dict[str, Any]] = {
    "mlp": {"in_features": 64, "hidden": [16, 12]}, "resnet8": {"width": 0.25, "in_channels": 1},
}  # fmt: skip


def on(name: str) -> list[str]:
    options = [f"{key}={json.dumps(value)}" for key, value in SETTINGS[name].items()]
    return ["--model", name, "--model-options", *options, "--data", "digits", "--n-train", "300"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained checkpoints of each network."""
    folder, data = tmp_path_factory.mktemp("checkpoints"), digit_batches(300, 50)
    for name, settings in SETTINGS.items():
        for seed in (0, 1):
            model = build(name, seed=seed, **settings)
            trained = cl.train(model, data, lr=0.05, epochs=2, seed=seed)
            torch.save(cl.loaded(model, trained.point).state_dict(), folder / f"{name}-{seed}.pt")
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else None, err


@pytest.mark.parametrize("name", SETTINGS)
def test_the_command(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    words = ["align", f"{name}-0.pt", f"{name}-1.pt", *on(name), "--points", "3", "-o", name]
    steps = 4 if name == "mlp" else 5  # without batch norm raw and refreshed are one
    status, priced, _ = run(capsys, *words, "--dry-run")
    assert (status, [step["state"] for step in priced["steps"]]) == (0, ["to do"] * steps)
    status, found, err = run(capsys, *words)
    assert (status, err.count("done")) == (0, steps)
    assert found["distance_after"] < found["distance_before"]
    rows = {(row["line"], row["split"], row["metric"]): row["barrier"] for row in found["barriers"]}
    assert len(rows) == len(pd.read_csv(f"{name}/alignment.csv")) == 4 * 2 * 2
    assert (rows["raw", "test", "loss"] == rows["refreshed", "test", "loss"]) == (name == "mlp")
    wanted = [
        f"alignment{ending}" for ending in (".json", ".csv", "-train.svg", "-train.png", "-test.svg", "-test.png")
    ]
    assert [Path(file).name for file in found["files"]] == ["aligned.safetensors", *wanted]

    checkpoint = f"{name}/aligned.safetensors"
    model, batch = build(name, **SETTINGS[name]), digit_batches(20, 20)[0][0]
    outputs = [cl.loaded(model, path).eval()(batch) for path in (f"{name}-1.pt", checkpoint)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    again = run(capsys, "barrier", f"{name}-0.pt", checkpoint, *on(name), "--points", "3")[1]
    assert again["values"][0][1] == rows["aligned" if name == "mlp" else "repaired", "train", "loss"]

    status, second, err = run(capsys, *words)
    assert (status, second, err.count("reused")) == (0, found, steps)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "hidden units in" in out
    assert "repaired   test     loss" in out
    assert main(["runs", "show", found["runs"]["align"]]) == 0
    assert "aligned.safetensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mlp-0.pt", "resnet8-1.pt", *on("mlp")], "resnet8-1.pt"),
        (["mlp-0.pt", "mlp-1.pt", *on("mlp"), "--method", "luck"], "luck"),
    ],
)
def test_wrong_use(
    words: list[str], said: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert main(["align", *words]) == 2
    assert said in capsys.readouterr().err


NETS = """
from torch import nn

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.cells(x.flatten(1, 2))[0][:, -1])

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def unbiased():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8, bias=False), nn.ReLU(), nn.Linear(8, 10))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two checkpoints of a network of the user's, and the words that align them."""
    (tmp_path / "aligned_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "aligned_nets", raising=False)

    def made(name: str) -> list[str]:
        for seed, file in enumerate(("a.pt", "b.pt")):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                torch.save(getattr(importlib.import_module("aligned_nets"), name)().state_dict(), file)
        return ["align", "a.pt", "b.pt", "--model", f"aligned_nets:{name}", "--data", "digits", "--points", "3"]

    return made


@pytest.mark.parametrize(("name", "said"), [("Recurrent", "cells calls"), ("linear", "no hidden units")])
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "dry"])
def test_what_cannot_be_followed_is_told_before_any_step(
    name: str, said: str, more: list[str], own: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*own(name), *more]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "steps failed" not in err
    assert not Path("runs").exists()


def test_what_cannot_be_repaired_is_aligned_all_the_same(own: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = own("unbiased")
    status, found, err = run(capsys, *words, "-o", "out")
    assert (status, err.count("done")) == (0, 3)
    assert {row["line"] for row in found["barriers"]} == {"raw", "refreshed", "aligned"}
    assert found["not_repaired"].startswith("1 has no bias")
    assert Path("out/aligned.safetensors").exists()
    assert main(words) == 0
    assert f"Not repaired: {found['not_repaired']}." in capsys.readouterr().out

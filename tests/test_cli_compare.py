"""`compare` and `layers` on networks and data that the package has never seen, and on finished runs."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import closerlook as cl
from closerlook.batches import feed_for
from closerlook.cli import main
from closerlook.evaluation import estimate_batch_stats
from closerlook.launch import launch, pool
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import (
    Average,
    CompareRecipe,
    DataSpec,
    ModelSpec,
    OptimizerSpec,
    Seeds,
    Snapshot,
    TrainRecipe,
)
from closerlook.runs.store import Store
from closerlook.steps.cost import counts
from closerlook.steps.setting import network, parts

MODULE = """
import torch
from torch import nn


def net(channels=4):
    return nn.Sequential(
        nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(4 * channels, 3),
    )


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.lstm(x[:, 0])[0][:, -1])


def part(n, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % 3
    return torch.randn(n, 1, 6, 6, generator=generator) + targets[:, None, None, None], targets


def data():
    return part(400, 0), part(12, 1), part(120, 2)
"""
ON = ["--model", "cli_compare_module:net", "--data", "cli_compare_module:data"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The user's folder: a module and three checkpoints, one of another network."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "cli_compare_module.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        import cli_compare_module as own

        for seed, name in enumerate("ab"):
            torch.manual_seed(seed)
            net = own.net()
            result = cl.train(net, [own.part(120, 0)], lr=0.1, epochs=10)
            torch.save(cl.loaded(net, result.point).state_dict(), folder / f"{name}.pt")
        torch.save(own.net(channels=6).state_dict(), "wide.pt")
        yield folder
    sys.modules.pop("cli_compare_module")


def run(capsys, *words):
    """Exit status, parsed JSON and stderr of a command."""
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else None, err


def test_compare_agrees_with_the_library_and_is_reused(place, capsys):
    import cli_compare_module as own

    words = ["compare", "a.pt", "b.pt", *ON, "--layers", "?", "--measures", "cca:r2", "cka", "--split", "test"]
    status, priced, _ = run(capsys, *words, "--dry-run")
    assert status == 0
    # What a test part of the user's own holds is not known before it is read: as many as are read in training.
    assert [(step["state"], step["images"]) for step in priced["steps"]] == [("to do", 2 * 300)]
    assert not (place / "runs").exists()

    status, first, _ = run(capsys, *words)
    assert status == 0
    model, (inputs, targets) = own.net(), own.data()[2]
    direct = cl.compare(
        cl.loaded(model, "a.pt"), cl.loaded(model, "b.pt"), [(inputs, targets)], ["?"], measures=["cca:r2", "cka"]
    )
    stored = cl.Comparison.from_dict(first)
    assert stored.layers_a == direct.layers_a == ("0", "1", "2", "3", "5")
    np.testing.assert_allclose(stored.tables["value"]["cka"], direct.tables["value"]["cka"], atol=1e-6)
    assert first["n"] == 120
    names = [Path(file).name for file in first["files"]]
    assert names[:2] == ["compare.json", "compare.csv"]
    assert {"compare-cka.svg", "compare-cca-r2.png", "compare-layers.svg"} <= set(names)
    assert len(pd.read_csv(first["files"][1])) == 2 * 5 * 5
    assert {**json.loads(Path(first["files"][0]).read_text()), "files": first["files"]} == first

    status, second, err = run(capsys, *words)
    assert (status, second) == (0, first)
    assert err.count("reused") == 1
    assert [step["state"] for step in run(capsys, *words, "--dry-run")[1]["steps"]] == ["done"]

    assert main(words) == 0
    out = capsys.readouterr().out
    assert "120 test images, conv: mean, tokens: mean, forward passes in float32." in out
    assert "corrected" in out.splitlines()[0]
    assert run(capsys, "runs", "show", "compare")[1]["layers"] == "5 x 5"
    assert main(["report", first["runs"]["compare"], "-o", "report.html"]) == 0
    assert "Similarity of layers (cka) on 120 images" in (place / "report.html").read_text()


def test_another_network_on_the_other_side_and_both_nulls(place, capsys):
    other = ["--model-b", "cli_compare_module:net", "--model-b-options", "channels=6", "--layers-b", "1"]
    words = ["compare", "a.pt", "wide.pt", *ON, *other, "--layers", "0", "--measures", "procrustes"]
    words += ["--nulls", "random", "shuffled"]
    status, found, _ = run(capsys, *words, "--intervals", "-o", "out")
    assert status == 0
    assert found["n"] == 300
    used, asked = {"directions_a", "directions_b"}, {"error", "low", "high", "random", "shuffled"}
    assert set(found["tables"]) == {"value", "chance", "corrected"} | used | asked
    assert found["tables"]["shuffled"]["procrustes"][0][0] < found["tables"]["value"]["procrustes"][0][0]
    assert [side["width"] for side in found["side_a"] + found["side_b"]] == [4, 6]
    assert (place / "out" / "compare-procrustes.svg").read_text().startswith("<svg")
    assert main([*words, "--intervals"]) == 0
    header, first = capsys.readouterr().out.splitlines()[:2]
    assert header.split()[-7:] == ["procrustes", "value", "chance", "low", "high", "random", "shuffled"]
    numbers = [found["tables"][kind]["procrustes"][0][0] for kind in ("value", "chance", "low", "high", "random")]
    np.testing.assert_allclose([float(word) for word in first.split()[-6:-1]], numbers, rtol=1e-3)


def test_intervals_and_nulls_are_shown(place, capsys):
    words = ["compare", "a.pt", "b.pt", *ON, "--layers", "0", "2", "--measures", "svcca", "cka", "--intervals"]
    _, found, _ = run(capsys, *words, "--nulls", "shuffled")
    assert main([*words, "--nulls", "shuffled"]) == 0
    header, first = capsys.readouterr().out.splitlines()[:2]
    assert " ".join(header.split()) == "layer directions a directions b svcca chance corrected low high shuffled"
    kinds = ("directions_a", "directions_b", "value", "chance", "corrected", "low", "high", "shuffled")
    for kind, number in zip(kinds, first.split()[1:], strict=True):
        assert float(number) == pytest.approx(found["tables"][kind]["svcca"][0][0], rel=1e-3)


def test_a_measure_that_no_pair_allows_says_what_to_change(place, capsys):
    assert main(["compare", "a.pt", "b.pt", *ON, "--measures", "svcca:60,r2", "cka"]) == 1
    err = capsys.readouterr().err
    assert "svcca:60,r2 of 0 / 0: A 0 has 4 directions, not 60; ask for at most 4" in err


def test_layers(place, capsys):
    status, rows, _ = run(capsys, "layers", *ON[1:2], *ON[2:], "--match", "2", "--model-options", "channels=5")
    assert status == 0
    listed = {row["layer"]: row for row in rows}
    assert list(listed) == ["0", "1", "2", "3", "4", "5", "(model)"]
    assert listed["0"]["shape"] == [5, 4, 4]
    assert listed["0"]["units"] == {"mean": 5, "positions": [5, 16], "flatten": 80, "spectral": [5, 12]}
    assert [row["compared"] for row in rows] == ["-", "-", "yes", "-", "- (is 3)", "-", "- (is 5)"]
    status, rows, _ = run(capsys, "layers", "cli_compare_module:Recurrent", *ON[2:], "--match", "*", "lstm:1.0.0")
    assert status == 2
    assert main(["layers", "cli_compare_module:Recurrent", *ON[2:]]) == 0
    out = capsys.readouterr().out
    assert "5 x 6" in out
    assert "first" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.pt", "b.pt", *ON, "--layers", "conv*"], "no layer matches 'conv*'"),
        (["a.pt", "b.pt", *ON, "--measures", "ckaa"], "no measure 'ckaa'"),
        (["a.pt", "wide.pt", *ON], "wide.pt"),
        (["a.pt", "nowhere.pt", *ON], "nowhere.pt"),
        (["a.pt", "b.pt", *ON, "--model-b", "vgg11_b"], "did you mean vgg11_bn"),
        (["a.pt", "b.pt", *ON, "--conv", "average"], "average"),
        (["a.pt", "b.pt", *ON, "--cut", "0"], "0 is not above 0"),
    ],
)
def test_wrong_use_says_what_to_change(place, capsys, words, said):
    assert main(["compare", *words]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""


def test_what_a_comparison_costs():
    data = DataSpec(name="digits", n_train=300, n_validation=0, n_statistics=80, n_read=120, seed=100)
    a, b = Snapshot(run="train-1", step=0), Snapshot(run="train-1", step=9)
    recipe = CompareRecipe(data=data, model=ModelSpec(name="mlp"), a=a, b=b)
    assert counts(recipe) == (0, 240)
    assert counts(recipe.model_copy(update={"nulls": ("random",), "split": "test"})) == (0, 3 * 360)


DATA = DataSpec(name="digits", n_train=300, n_validation=0, n_statistics=80, n_read=150, seed=1)
MODEL = ModelSpec(name="vgg11_bn", options={"width": 0.0625, "head": "linear", "init": "he"})


def test_the_step_compares_snapshots_and_averages_of_runs(tmp_path):
    training = TrainRecipe(
        data=DATA, model=MODEL, optimizer=OptimizerSpec(lr=0.05), epochs=1, batch_size=50, seeds=Seeds.of(1),
        snapshots=("0it", "3it"),
    )  # fmt: skip
    first, third, last = (Snapshot(run=run_id(training), step=step) for step in (0, 3, 6))
    common = {"data": DATA, "model": MODEL, "layers_a": ("*relu?",), "measures": ("cka",), "a": first}
    plain = CompareRecipe(b=last, nulls=("random",), seed=4, **common)
    average = CompareRecipe(b=Average(of=(third, last)), split="test", **common)
    store = Store(tmp_path)
    with pool(1) as executor:
        launch((training, plain, average), store, executor, 1, lambda event: None)
    checkpoints = store.folder(training).path / "checkpoints"
    files = {step: checkpoints / f"step-{step:06d}.safetensors" for step in (0, 3, 6)}
    networks = {step: cl.loaded(network(MODEL, DATA, 0), file) for step, file in files.items()}
    batches = [tuple(parts(DATA).read)]
    direct = cl.compare(
        networks[0], networks[6], batches, ["*relu?"], measures=["cka"], nulls=["random"],
        untrained=network(MODEL, DATA, 4),
    )  # fmt: skip
    found = cl.Comparison.from_dict(store.folder(plain).result("compare"))
    assert found.layers_a == tuple(f"features.relu{number}" for number in range(1, 9))
    np.testing.assert_allclose(found.tables["value"]["cka"], direct.tables["value"]["cka"], atol=1e-5)
    np.testing.assert_allclose(found.tables["random"]["cka"], direct.tables["random"]["cka"], atol=1e-5)
    # An average of weights has no batch-norm statistics of its own: with those of an end it is another network.
    mixed = network(MODEL, DATA, 0)
    space = cl.WeightSpace(mixed)
    ends = [space.point(files[step]).vector for step in (3, 6)]
    mixed = cl.loaded(mixed, torch.stack(ends).mean(0))
    estimate_batch_stats(mixed, [tuple(parts(DATA).statistics)], feed_for(mixed)[1])
    test = [tuple(parts(DATA).test)]
    direct = cl.compare(networks[0], mixed, test, ["*relu?"], measures=["cka"])
    found = cl.Comparison.from_dict(store.folder(average).result("compare"))
    np.testing.assert_allclose(found.tables["value"]["cka"], direct.tables["value"]["cka"], atol=1e-4)
    assert found.n == 360


def test_model_and_data_come_from_the_run_that_made_the_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = {
        "data": {"name": "digits", "n_train": 300, "n_validation": 0, "n_statistics": 50, "n_read": 250, "seed": 0},
        "model": {"name": "mlp", "options": {"hidden": [12, 8]}}, "optimizer": {"lr": 0.1}, "epochs": 1,
        "batch_size": 50, "seeds": {"init": 0, "order": 0, "augment": 0, "noise": 0}, "snapshots": ["0it"],
    }  # fmt: skip
    Path("recipe.json").write_text(json.dumps(recipe))
    status, trained, _ = run(capsys, "train", "recipe.json")
    assert status == 0
    status, found, _ = run(capsys, "compare", *trained["checkpoints"], "--layers", "relu*", "--nulls", "random")
    assert status == 0
    assert found["n"] == 250
    assert found["label"] == "step-000000.safetensors against step-000006.safetensors"
    assert [side["layer"] for side in found["side_a"]] == ["relu1", "relu2"]
    # A is the initial network of seed 0, and the untrained network is another one although the seed is 0 again.
    assert found["tables"]["random"]["cka"][0][0] < 0.95

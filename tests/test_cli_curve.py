"""`closerlook curve` on checkpoints and readings as the reference code of mode connectivity writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import closerlook as cl
from closerlook import data, models
from closerlook.cli import main
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import Control, DataSpec, ModelSpec, ProfileRecipe
from test_reference_files import curve_npz, curve_state, networks, saved

ON = ["--model", "mlp", "--data", "digits", "--n-read", "60", "--n-statistics", "40", "--points", "5"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else None, err


def test_a_reading_of_theirs_is_told_and_drawn(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = curve_npz(place / "curve.npz", "bezier", networks(), 7)
    assert main(["curve", "curve.npz", "--metric", "error", "-o", "out"]) == 0
    out = capsys.readouterr().out
    height = (stored["te_err"].max() - max(stored["te_err"][[0, -1]])) / 100
    row = next(line.split() for line in out.splitlines() if line.startswith("curve  test"))
    assert float(row[5]) == pytest.approx(height, abs=1e-4)
    assert f"{stored['dl'].sum():.4g} long" in out
    said = ("share of wrong answers", "7 points on t", "statistics: reference,", "weights unknown", "no intervals")
    assert all(words in out for words in said)
    assert (place / "out" / "curve.svg").read_text().startswith("<svg")
    assert len((place / "out" / "curve.csv").read_text().splitlines()) == 1 + 7

    status, found, _ = run(capsys, "curve", "curve.npz")
    assert status == 0
    assert [row["low"] for row in found["barriers"]] == [None] * 6
    assert np.allclose(found["curve"]["values"]["test_loss"], stored["te_nll"], rtol=0, atol=1e-12)
    assert run(capsys, "curve", "curve.npz", "--dry-run")[1] == {"steps": []}


def test_a_curve_of_theirs_is_read_on_ones_own_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nets = [models.build("mlp", seed=seed, in_features=64, classes=10) for seed in range(3)]
    saved(place / "checkpoint-200.pt", curve_state("bezier", nets))
    words = ["curve", "checkpoint-200.pt", *ON]
    status, priced, _ = run(capsys, *words, "--dry-run")
    assert status == 0
    (step,) = priced["steps"]
    assert (step["state"], step["recipe"]["curve"]) == ("to do", "bezier")
    assert [point["index"] for point in step["recipe"]["points"]] == [0, 1, 2]
    assert not (place / "runs").exists()

    status, found, _ = run(capsys, *words)
    assert status == 0
    (told,) = (row for row in found["barriers"] if (row["metric"], row["split"]) == ("loss", "test"))
    losses = np.array(found["curve"]["values"]["test_loss"])
    assert told["value"] == pytest.approx(losses.max() - max(losses[[0, -1]]), abs=1e-12)
    curve = cl.load_curve("checkpoint-200.pt", nets[0])
    test = data.split(data.load("digits"), n_train=100, n_validation=0, n_statistics=40, n_read=60, seed=0).test
    assert found["curve"]["n"]["test"] == len(test.targets)
    for number, t in enumerate(np.linspace(0, 1, 5)):
        here = cl.evaluate(cl.loaded(nets[0], curve.at(t)), [(test.inputs, test.targets)])
        assert losses[number] == pytest.approx(here.loss, abs=1e-6)
    assert found["curve"]["length"] == pytest.approx(curve.length(), rel=1e-9)
    status, again, err = run(capsys, *words)
    assert (status, again) == (0, found)
    assert "reused" in err


def test_the_hash_of_a_reading_is_the_pinned_one() -> None:
    # A changed line here makes every stored reading of such a curve another run.
    specs = {"data": DataSpec(name="digits", n_train=100, n_validation=0, n_statistics=40, n_read=60, seed=0)}
    points = tuple(Control(path="/c.pt", sha256="0" * 64, index=index) for index in range(3))
    recipe = ProfileRecipe(**specs, model=ModelSpec(name="mlp"), curve="bezier", points=points, t=61)
    assert run_id(recipe) == "profile-e720e923"


def test_what_is_no_curve_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = models.build("mlp", seed=0, in_features=64, classes=10)
    torch.save(net.state_dict(), "one.pt")
    saved(place / "other.pt", curve_state("bezier", networks()))
    np.savez("plane.npz", ts=np.zeros(3))
    refused = {
        ("one.pt", *ON): "no curve of the reference code",
        ("other.pt", *ON): "does not fit the model",
        ("other.pt",): "which data goes with other.pt",
        ("plane.npz",): "no array dl",
        ("gone.npz",): "there is no file gone.npz",
        ("plane.npz", "--points", "7"): "plane.npz is read already",
        ("plane.npz", *ON): "plane.npz is read already",
    }
    for words, message in refused.items():
        assert main(["curve", *words]) == 2
        assert message in capsys.readouterr().err
    assert not (place / "runs").exists()

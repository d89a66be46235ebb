"""`path`, `surface`, `barrier` on networks and data that the package has never seen, in the user's own folder."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import closerlook as cl
from closerlook.cli import main

MODULE = """
import sys
import torch
from torch import nn

print("this goes to stderr")


def net(channels=4, classes=3):
    return nn.Sequential(
        nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(4 * channels, classes),
    )


def part(n, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % 3
    return torch.randn(n, 1, 6, 6, generator=generator) + targets[:, None, None, None], targets


def data():
    return part(120, 0), part(12, 1), part(60, 2)


def loaders():
    return [part(12, 0)], [part(12, 1)], [part(12, 2)]
"""
ON = ["--model", "cli_users_module:net", "--data", "cli_users_module:data"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The user's folder: a module, three checkpoints and some that do not fit."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "cli_users_module.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        import cli_users_module as own

        for seed, name in enumerate("abc"):
            torch.manual_seed(seed)
            net = own.net()
            result = cl.train(net, [own.part(120, 0)], lr=0.1, epochs=20)
            torch.save(cl.WeightSpace(net).state_dict(result.point), folder / f"{name}.pt")
        torch.save(own.net(channels=5).state_dict(), "wide.pt")
        torch.save({name: value.half() for name, value in net.state_dict().items()}, "half.pt")
        yield folder
    sys.modules.pop("cli_users_module")


def run(capsys, *words):
    """Exit status, parsed JSON and stderr of a command."""
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else None, err


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_path_reads_trains_writes_and_is_reused(place, capsys):
    words = ["path", "a.pt", "b.pt", *ON, "--epochs", "3", "--points", "5", "--batch-size", "20"]
    status, priced, _ = run(capsys, *words, "--dry-run")
    assert status == 0
    assert [step["state"] for step in priced["steps"]] == ["to do"] * 3
    assert priced["steps"][1]["recipe"]["kind"] == "connect"
    assert not (place / "runs").exists()

    status, first, err = run(capsys, *words)
    assert status == 0
    assert err.count(" done") == 3
    kept = {"path", "value", "t", "metric", "split", "definition", "points", "batch_stats", "dtype", "n", "ends",
            "precision", "low", "high", "level", "interval_of"}  # fmt: skip
    assert len(first["barriers"]) == 12
    assert all(set(row) == kept for row in first["barriers"])
    assert first["training"]["epochs"] == 3
    assert [Path(file).suffix for file in first["files"]] == [".json", ".csv", ".svg", ".png"]
    assert all(Path(file).stat().st_size > 500 for file in first["files"])
    stored = json.loads(Path(first["files"][0]).read_text())
    assert stored == {name: value for name, value in first.items() if name != "files"}
    assert len(Path(first["files"][1]).read_text().splitlines()) == 1 + 2 * 5

    runs = {name: stamp for name, stamp in files_of(place / "runs").items() if "path-" not in str(name)}
    status, second, err = run(capsys, *words)
    assert (status, second) == (0, first)
    assert err.count("reused") == 3
    assert runs.items() <= files_of(place / "runs").items()
    assert [step["state"] for step in run(capsys, *words, "--dry-run")[1]["steps"]] == ["done"] * 3


def test_path_agrees_with_the_library(place, capsys):
    import cli_users_module as own

    words = ["path", "a.pt", "b.pt", *ON, "--epochs", "0", "--points", "5", "--splits", "test", "--n-statistics", "30"]
    status, found, _ = run(capsys, *words, "--definition", "above_line", "--batch-stats", "interpolate")
    assert status == 0
    (told,) = (row for row in found["barriers"] if row["metric"] == "loss")
    net, test = own.net(), own.data()[2]
    a, b = (cl.WeightSpace(net).point(file) for file in ("a.pt", "b.pt"))
    path = cl.profile(net, cl.line(a, b), [test], 5, batch_stats="interpolate")
    barrier = path.barrier("train", "loss", "above_line")
    assert told["value"] == pytest.approx(barrier.value, abs=1e-6)
    assert told["definition"] == "above_line"
    assert told["n"] == 60


def test_path_says_what_a_barrier_must_carry(place, capsys):
    assert main(["path", "a.pt", "b.pt", *ON, "--epochs", "1", "--kind", "bezier", "--points", "3", "-o", "out"]) == 0
    out = capsys.readouterr().out
    said = ("train", "test", "above_ends", "3 points on t", "recompute on 30 training images", "float32", "nats")
    assert all(word in out for word in said)
    assert "bezier, trained bends: 1, epochs: 1" in out
    assert "A with its own statistics: loss train" in out
    assert (place / "out" / "path.svg").read_text().startswith("<svg")


def test_surface(place, capsys):
    words = ["surface", "a.pt", "b.pt", "c.pt", *ON, "--grid", "3", "4", "--splits", "train", "--mark", "wide.pt"]
    assert run(capsys, *words)[0] == 2
    torch.save(torch.load("a.pt", weights_only=True), "copy.pt")
    status, found, _ = run(capsys, *words[:-1], "copy.pt")
    assert status == 0
    assert set(found["marks"]) == {"a.pt", "b.pt", "c.pt", "copy.pt"}
    assert found["marks"]["a.pt"] == pytest.approx([0, 0, 0], abs=1e-6)
    assert len(found["values"]["train_loss"]) == 4
    assert [Path(file).name for file in found["files"]][2:] == ["surface-train.svg", "surface-train.png"]
    assert main([*words[:-1], "copy.pt"]) == 0
    out, err = capsys.readouterr()
    assert "distance off the plane" in out
    assert "reused" in err


def test_barrier(place, capsys):
    words = ["barrier", "a.pt", "b.pt", *ON, "--points", "3"]
    status, two, _ = run(capsys, *words)
    assert status == 0
    words[3:3] = ["c.pt"]
    assert [step["state"] for step in run(capsys, *words, "--dry-run")[1]["steps"]] == ["done", "to do", "to do"]
    status, found, err = run(capsys, *words, "--jobs", "2")
    assert (status, err.count("reused"), err.count(" done")) == (0, 1, 2)
    assert found["labels"] == ["a.pt", "b.pt", "c.pt"]
    assert found["runs"]["a.pt to b.pt"] == two["runs"]["a.pt to b.pt"]
    assert (found["split"], found["n"], found["points"]) == ("train", 90, 3)
    assert [(row["a"], row["b"]) for row in found["pairs"]] == [("a.pt", "b.pt"), ("a.pt", "c.pt"), ("b.pt", "c.pt")]
    for row, (i, j) in zip(found["pairs"], [(0, 1), (0, 2), (1, 2)], strict=True):
        assert 0 <= row["low"] <= row["barrier"] <= row["high"]
        assert [row["low"], row["barrier"], row["high"]] == [found[key][j][i] for key in ("low", "values", "high")]
    assert len(Path(found["files"][1]).read_text().splitlines()) == 4
    status, test, _ = run(capsys, *words, "--split", "test")
    assert (status, test["n"]) == (0, 60)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Read on 90 train images." in out
    assert "95% interval over other images" in out


def test_barriers_to_a_tolerance_agree_with_the_library(place, capsys):
    import cli_users_module as own

    words = ["barrier", "a.pt", "b.pt", "c.pt", *ON, "--points", "9", "--split", "test", "--batch-stats", "interpolate"]
    assert main([*words, "--tolerance", "0.01", "--level", "0.9"]) == 0
    assert "90% interval of the reading of all images" in capsys.readouterr().out
    status, found, err = run(capsys, *words, "--tolerance", "0.01", "--level", "0.9")
    assert (status, err.count("reused")) == (0, 3)
    library = cl.barrier_matrix(
        own.net(), ["a.pt", "b.pt", "c.pt"], [own.data()[2]], points=9, batch_stats="interpolate", tolerance=0.01,
        level=0.9,
    ).to_dict()  # fmt: skip
    for name in ("values", "low", "high"):
        assert np.allclose(found[name], library[name], atol=1e-6)
    assert [found[name] for name in ("points", "interval_of", "level")] == [library["points"], "loader", 0.9]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.pt", "nowhere.pt", *ON], "no checkpoint at nowhere.pt"),
        (["a.pt", "cli_users_module.py", *ON], "cli_users_module.py cannot be loaded: it is no file of torch.save"),
        (["a.pt", "wide.pt", *ON], "0.weight: (5, 1, 3, 3) here, (4, 1, 3, 3) in the model"),
        (["a.pt", "half.pt", *ON], "float16"),
        (["a.pt", "b.pt", *ON[2:]], "which model goes with a.pt?"),
        (["a.pt", "b.pt", *ON[:2]], "which data goes with a.pt?"),
        (["a.pt", "b.pt", "--model", "vgg11_b", *ON[2:]], "did you mean vgg11_bn"),
        (["a.pt", "b.pt", "--model", "cli_users_module:nett", *ON[2:]], "did you mean net?"),
        (["a.pt", "b.pt", "--model", "no_such_module:net", *ON[2:]], "no module no_such_module"),
        (["a.pt", "b.pt", *ON, "--model-options", "chanels=4"], "unexpected keyword argument 'chanels'"),
        (["a.pt", "b.pt", *ON, "--model-options", "channels"], "write KEY=VALUE"),
        (["a.pt", "b.pt", *ON[:2], "--data", "digit"], "did you mean digits"),
        (["a.pt", "b.pt", *ON[:2], "--data", "cli_users_module:loaders"], "cannot be seeded"),
        (["a.pt", "b.pt", *ON, "--n-read", "1000"], "n_read=1000 does not fit"),
        (["a.pt", "b.pt", *ON, "--n-train", "1000"], "has 120 training examples"),
        (["a.pt", "b.pt", *ON, "--tolerance", "0"], "0.0 does not lie between 0 and inf"),
        (["a.pt", "b.pt", *ON, "--tolerance", "nan"], "nan does not lie between 0 and inf"),
        (["a.pt", "b.pt", *ON, "--level", "1"], "1.0 does not lie between 0 and 1"),
    ],
)
def test_wrong_use_says_what_to_change(place, capsys, words, said):
    assert main(["path", *words]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""


def test_a_failing_step_is_one_line(place, capsys):
    ten_classes = ["--data", "digits", "--n-train", "9", "--epochs", "0"]
    status, found, err = run(capsys, "path", "a.pt", "b.pt", *ON[:2], *ten_classes)
    assert (status, found) == (1, None)
    assert "IndexError" in err.splitlines()[-1]

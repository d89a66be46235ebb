"""`agreement` on a student and a teacher that the package has never seen."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import closerlook as cl
from closerlook.cli import main
from closerlook.runs.recipe import AgreementRecipe, DataSpec, ModelSpec, Snapshot
from closerlook.steps.cost import counts

MODULE = """
import torch
from torch import nn


def student():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def teacher(width=8, classes=3):
    hidden = nn.Linear(36, width), nn.BatchNorm1d(width), nn.ReLU()
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, classes))


def part(n, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % 3
    return torch.randn(n, 1, 6, 6, generator=generator) + 0.2 * targets[:, None, None, None], targets


def data():
    return part(300, 0), part(12, 1), part(150, 2)
"""
ON = ["--model", "cli_agreement_module:student", "--data", "cli_agreement_module:data"]
OTHER = ["--model-b", "cli_agreement_module:teacher"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The user's folder: a module, a student, its teacher, and one for other classes."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "cli_agreement_module.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        import cli_agreement_module as own

        for name in ("student", "teacher"):
            torch.manual_seed(0)
            net = getattr(own, name)()
            trained = cl.train(net, [own.part(150, 0)], lr=0.1, epochs=5)
            torch.save(cl.loaded(net, trained.point).state_dict(), f"{name}.pt")
        torch.save(own.teacher(classes=4).state_dict(), "four.pt")
        yield folder
    sys.modules.pop("cli_agreement_module")


def run(capsys, *words):
    """Exit status, parsed JSON and stderr of a command."""
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else None, err


def test_agreement_is_that_of_the_library_and_is_reused(place, capsys):
    import cli_agreement_module as own

    words = ["agreement", "student.pt", "teacher.pt", *ON, *OTHER, "--temperature", "2", "--level", "0.9"]
    status, priced, _ = run(capsys, *words, "--dry-run")
    assert status == 0
    assert [(step["state"], step["recipe"]["kind"]) for step in priced["steps"]] == [("to do", "agreement")]
    assert not (place / "runs").exists()

    status, first, _ = run(capsys, *words)
    assert status == 0
    nets = cl.loaded(own.student(), "student.pt"), cl.loaded(own.teacher(), "teacher.pt")
    direct = cl.agreement(*nets, [own.data()[2]], temperature=2.0, level=0.9)
    stored = cl.Agreement.from_dict(first)
    assert stored.sizes == direct.sizes
    assert 0 < stored.sizes["b wrong"] < stored.n == 150
    for name, estimate in direct.parts["all"].items():
        mine = stored.estimate(name)
        # One pass of 150 images here as there, but through networks that were built anew, on one thread.
        assert (mine.value, mine.low, mine.high) == pytest.approx(
            (estimate.value, estimate.low, estimate.high), abs=1e-6
        )
    assert [Path(file).suffix for file in first["files"]] == [".json", ".csv", ".svg", ".png"]
    assert {**json.loads(Path(first["files"][0]).read_text()), "files": first["files"]} == first
    table = pd.read_csv(first["files"][1])
    assert set(table.part) == {"all", "b right", "b wrong"}
    assert first["intervals"] == "over images, not over seeds"

    status, second, err = run(capsys, *words)
    assert (status, second) == (0, first)
    assert err.count("reused") == 1
    assert [step["state"] for step in run(capsys, *words, "--dry-run")[1]["steps"]] == ["done"]

    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.split("\n")[0].split() == ["all", "low", "high", "B", "right", "B", "wrong"]
    assert f"150 test images, {stored.sizes['b right']} B right" in out
    assert "90% interval over images, not over seeds.\nDivergences at temperature 2." in out
    assert run(capsys, "runs", "show", "agreement")[1]["kappa"] == first["parts"]["all"]["kappa"]["value"]
    assert main(["report", first["runs"]["agreement"], "-o", "report.html"]) == 0
    assert "Agreement in function on 150 images" in (place / "report.html").read_text()


def test_a_copy_of_a_student_agrees_with_it(place, capsys):
    Path("copy.pt").write_bytes(Path("student.pt").read_bytes())
    status, found, _ = run(capsys, "agreement", "student.pt", "copy.pt", *ON, "--split", "train", "-o", "out")
    assert status == 0
    assert found["n"] == 225  # of 300, 75 are kept for statistics
    whole = {name: each["value"] for name, each in found["parts"]["all"].items()}
    assert (whole["agreement"], whole["kl_a_b"], whole["kappa"], whole["gain"]) == (1, 0, 1, 0)
    assert (place / "out" / "agreement.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["student.pt", "teacher.pt", *ON], 2, "teacher.pt"),
        (["student.pt", "nowhere.pt", *ON], 2, "nowhere.pt"),
        (["student.pt", "teacher.pt"], 2, "which data goes with student.pt"),
        (["student.pt", "teacher.pt", *ON, *OTHER, "--temperature", "0"], 2, "0"),
        (["student.pt", "teacher.pt", *ON, *OTHER, "--level", "95"], 2, "95"),
        (["student.pt", "four.pt", *ON, *OTHER, "--model-b-options", "classes=4"], 1, "only outputs of one shape"),
    ],
)
def test_wrong_use_says_what_to_change(place, capsys, words, status, said):
    assert main(["agreement", *words]) == status
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""


def test_what_it_costs():
    data = DataSpec(name="digits", n_train=300, n_validation=0, n_statistics=80, n_read=120, seed=100)
    a, b = Snapshot(run="train-1", step=0), Snapshot(run="train-1", step=9)
    recipe = AgreementRecipe(data=data, model=ModelSpec(name="mlp"), a=a, b=b)
    assert counts(recipe) == (0, 720)
    assert counts(recipe.model_copy(update={"split": "train"})) == (0, 240)

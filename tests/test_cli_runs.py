"""`train`, `runs`, `report` on one small store."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from closerlook.cli import main

RECIPE = {
    "data": {"name": "digits", "n_train": 200, "n_validation": 50, "n_statistics": 50, "n_read": 100, "seed": 0},
    "model": {"name": "mlp", "options": {"hidden": [16]}}, "optimizer": {"lr": 0.1}, "epochs": 2, "batch_size": 50,
    "seeds": {"init": 0, "order": 0, "augment": 0, "noise": 0},
}  # fmt: skip


def run(capsys, *words):
    """Exit status, parsed JSON and stderr of a command."""
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else None, err


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder with a recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a train run and a path between its checkpoints, and their names."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("recipe.json").write_text(json.dumps(RECIPE))
        assert main(["train", "recipe.json"]) == 0
        (train,) = Path("runs").iterdir()
        ends = [str(train / "checkpoints" / f"step-{step:06d}.safetensors") for step in (0, 8)]
        assert main(["path", *ends, "--epochs", "1", "--points", "3", "-o", "out"]) == 0
        names = json.loads(Path("out/path.json").read_text())["runs"]
    return folder / "runs", {"train": train.name, **names}


@pytest.fixture
def store(place, made):
    """A copy of that store in the present folder; the names of its runs."""
    shutil.copytree(made[0], place / "runs")
    return made[1]


def test_train_is_priced_run_and_reused(place, capsys):
    changes = ["--set", "optimizer.lr=0.05", "--set", 'snapshots=["1ep"]']
    status, priced, _ = run(capsys, "train", "recipe.json", *changes, "--dry-run")
    (step,) = priced["steps"]
    assert (status, step["state"], step["steps"], step["recipe"]["optimizer"]["lr"]) == (0, "to do", 8, 0.05)
    assert not (place / "runs").exists()
    status, found, err = run(capsys, "train", "recipe.json", *changes)
    assert (status, found["run"], found["state"], found["step"]) == (0, step["run"], "done", 8)
    assert len(found["checkpoints"]) == 3
    assert " done" in err
    again = run(capsys, "train", f"runs/{step['run']}/recipe.json")
    assert again[:2] == (0, found)
    assert "reused" in again[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["optimizer.lrr=1"], ["optimizer.lrr: unknown key; did you mean lr?"]),
        (["epoch=1", "data.n_trian=1"], ["epoch: unknown key; did you mean epochs?", "data.n_trian: unknown key;"]),
        (["optimizer={}"], ["optimizer.lr: missing"]),
        (["epochs=many"], ["epochs: must be a valid integer", "not 'many'"]),
        (["optimizer.name=sdg"], ["optimizer.name: must be 'sgd', 'adam' or 'adamw', not 'sdg'"]),
        (['schedule={"kind": "restart"}'], ["schedule: no 'restart' here; choose one of", "'restarts'"]),
        (['schedule={"kind": "restarts", "frist": 1}'], ["schedule.first: missing", "did you mean first"]),
        (['start={"run": "x", "stp": 1}'], ["start.stp: unknown key; did you mean step?"]),
        (['start={"run": "train-0", "step": 1}'], ["start: runs holds no finished run train-0"]),
        (['snapshots=["3ep"]'], ["not at 3ep"]),
        (['snapshots=["3e"]'], ["cannot read the duration '3e'"]),
        (["epochs=0"], ["must be at least 1"]),
        (["data.n_train=2000"], ["digits has 1437 training examples"]),
        (["model.name=mpl"], ["did you mean mlp"]),
        (["model.options.hiden=3"], ["mlp has no option hiden"]),
        (["epochs"], ["write KEY=VALUE"]),
        (["epochs.x=1"], ["epochs holds a value"]),
    ],
)
def test_wrong_recipes_name_the_key(place, capsys, changes, said):
    assert main(["train", "recipe.json", *(word for change in changes for word in ("--set", change))]) == 2
    out, err = capsys.readouterr()
    assert all(each in err for each in said), err
    assert out == ""
    assert not (place / "runs").exists()


def test_alternatives_that_were_not_meant_stay_unsaid(place, capsys):
    nested = '{"kind": "then", "first": {"kind": "restarts", "frist": "1ep"}, "at": 1, "second": {"kind": "constant"}}'
    assert main(["train", "recipe.json", "--set", f"schedule={nested}", "--set", "snapshots=[[1]]"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == ["schedule.first.frist", "snapshots.0"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(RECIPE)[:50], "recipe.json is no JSON: line 1, column"),
        ("[1]", "holds no settings but a list"),
        ('{"kind": "profile"}', "recipe of kind profile"),
        ("", "is no JSON"),
        (None, "no recipe at recipe.json"),
    ],
)
def test_unreadable_recipes(place, capsys, content, said):
    Path("recipe.json").unlink() if content is None else Path("recipe.json").write_text(content)
    assert main(["train", "recipe.json"]) == 2
    assert said in capsys.readouterr().err


def test_ls_and_show(store, capsys):
    status, listed, _ = run(capsys, "runs", "ls")
    assert status == 0
    assert {row["run"] for row in listed} == set(store.values())
    assert all(row["state"] == "done" for row in listed)
    status, shown, _ = run(capsys, "runs", "show", store["train"][:8])
    assert (status, shown["run"], shown["recipe"]["epochs"]) == (0, store["train"], 2)
    assert main(["runs", "show", store["segment"]]) == 0
    assert "train loss barrier above the worse end" in capsys.readouterr().out
    assert main(["runs", "ls"]) == 0
    assert store["connect"] in capsys.readouterr().out
    assert main(["runs", "show", "profile"]) == 2
    assert "write more of it" in capsys.readouterr().err
    assert main(["runs", "show", "nothing"]) == 2
    assert "no run 'nothing' in runs" in capsys.readouterr().err
    assert run(capsys, "runs", "ls", "--runs", "elsewhere")[1] == []


def test_verify_finds_damage_and_names_the_repair(store, place, capsys):
    assert main(["runs", "verify"]) == 0
    assert capsys.readouterr().out == "4 finished runs checked, 0 damaged; 0 unfinished\n"
    result = place / "runs" / store["segment"] / "results" / "profile.json"
    result.write_text(result.read_text()[:-20])
    (place / "runs" / store["train"] / "recipe.json").write_text("{")
    (place / "runs" / store["curve"] / "DONE").unlink()
    status, found, _ = run(capsys, "runs", "verify")
    assert status == 1
    assert {row["run"]: row["damage"] for row in found} == {
        store["segment"]: ["results/profile.json is changed"], store["train"]: ["recipe.json is changed"],
        store["curve"]: [], store["connect"]: [],
    }  # fmt: skip
    assert main(["runs", "verify", store["connect"]]) == 0
    capsys.readouterr()
    assert main(["runs", "verify"]) == 1
    out = capsys.readouterr().out
    assert "3 finished runs checked, 2 damaged; 1 unfinished, 0 of them damaged\n" in out
    assert f"repair: closerlook runs rm {store['segment']} {store['train']} --runs runs, then the command that" in out
    assert {row["state"] for row in run(capsys, "runs", "ls")[1]} == {"damaged", "done", "begun"}
    assert main(["runs", "ls"]) == 0
    assert re.search(rf"{store['train']} +damaged +- +-", capsys.readouterr().out)
    status, _, err = run(capsys, "runs", "show", store["train"])
    assert status == 1
    assert "recipe.json is not readable JSON" in err


def test_verify_looks_at_unfinished_runs(store, place, capsys):
    folder = place / "runs" / store["train"]
    (folder / "DONE").write_text("{}")
    (folder / "recipe.json").unlink()
    state = folder / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    assert main(["runs", "verify", store["train"]]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{store['train']}: recipe.json is missing or damaged: its command, started again, writes it anew",
        f"{store['train']}: DONE is damaged: its command, started again, finishes the step from its last state",
        f"{store['train']}: state.safetensors is damaged: its command, started again, sets it aside and starts the "
        "step from its beginning",
        "0 finished runs checked, 0 damaged; 1 unfinished, 1 of them damaged",
    ]
    assert run(capsys, "runs", "ls")[1][-1]["state"] == "damaged"


def test_verify_finds_wrong_names_lost_inputs_and_leftovers(store, place, capsys):
    runs = place / "runs"
    (runs / store["train"]).rename(runs / "train-00000000")
    shutil.rmtree(runs / store["connect"])
    for process in (4_194_305, os.getpid()):  # no process has the first of these numbers, and we write the second
        (runs / "study-x" / "figures").mkdir(parents=True, exist_ok=True)
        for folder in (runs, runs / "study-x" / "figures", runs / "train-00000000"):
            (folder / f".a.json.{process}.tmp").write_text("half")
    assert main(["runs", "verify"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"train-00000000: its recipe is that of {store['train']}: give the folder that name")
    assert lines[1] == f"{store['curve']}: it was made from {store['connect']}, which is not here (no damage)"
    assert [line.partition(" was left half written")[0] for line in lines[2:5]] == [
        f"runs/{folder}.a.json.4194305.tmp" for folder in ("", "study-x/figures/", "train-00000000/")
    ]
    assert lines[5].startswith("3 finished runs checked, 1 damaged")


def test_a_newer_version_is_refused_with_the_repair(store, place, capsys):
    path = place / "runs" / store["train"] / "recipe.json"
    path.write_text(re.sub(r'"version": \d+', '"version": 99', path.read_text()))
    checkpoint = path.parent / "checkpoints" / "step-000008.safetensors"
    said = f"use the version that wrote it, or closerlook runs rm {store['train']} --runs "
    for words in (["runs", "show", store["train"]], ["path", str(checkpoint), str(checkpoint)]):
        assert main(words) == 1
        assert said in capsys.readouterr().err
    (path.parent / "DONE").unlink()
    assert main(["train", "recipe.json"]) == 1
    assert said in capsys.readouterr().err
    assert main(["runs", "verify"]) == 1
    assert said in capsys.readouterr().out


def test_rm(store, place, capsys):
    folder = place / "runs" / store["connect"]
    status, found, _ = run(capsys, "runs", "rm", store["connect"], "--dry-run")
    assert (status, found["deleted"], found["made_from_them"]) == (0, [], [store["curve"]])
    assert folder.exists()
    status, found, _ = run(capsys, "runs", "rm", store["connect"])
    assert (status, found["deleted"]) == (0, [store["connect"]])
    assert not folder.exists()
    for words in ([], [""], [".."], ["../.."], ["."], [store["connect"]]):
        assert main(["runs", "rm", *words]) == 2
    assert (place / "recipe.json").exists()


def test_rm_refuses_a_run_that_is_being_made(store, place, capsys):
    from closerlook.runs.store import Store

    with Store(place / "runs").folder(store["train"]).lock():
        assert main(["runs", "rm", store["train"]]) == 1
    assert (place / "runs" / store["train"]).exists()


def test_report_of_runs(store, place, capsys):
    status, found, _ = run(capsys, "report", *store.values(), "-o", "out/page.html")
    assert (status, found) == (0, {"report": "out/page.html"})
    page = (place / "out" / "page.html").read_text()
    assert page.count("<svg") == 5
    assert all(name in page for name in store.values())
    assert "Nothing was judged" in page
    assert main(["report", f"runs/{store['train']}", "-o", "one.html"]) == 0
    assert main(["report"]) == 2
    assert main(["report", "nothing"]) == 2


def test_report_of_a_study_that_another_version_made(place, capsys):
    folder = place / "runs" / "study-restarts-smoke-00000000"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"study": "restarts", "scale": "smoke", "seeds": [0, 1, 2]}))
    assert main(["report", str(folder)]) == 1
    assert "another version" in capsys.readouterr().err
    for content in ("{", "[]", "{}", '{"study": "restarts"}', '{"study": "restarts", "scale": "smoke", "seeds": 3}'):
        (folder / "plan.json").write_text(content)
        assert main(["report", str(folder)]) == 1
        assert "plan.json is " in capsys.readouterr().err
    assert main(["report", str(folder), "x"]) == 2
    shutil.rmtree(folder)

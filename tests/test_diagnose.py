"""`diagnose warmup`: short trainings with one thing changed, what is concluded from them, and the command."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from closerlook import models
from closerlook.cli import main
from closerlook.diagnosis import Settings, recipes_of, settings_for
from closerlook.diagnosis.arms import arms_of, name_of
from closerlook.diagnosis.blocks import blocks_of_depth
from closerlook.diagnosis.drawings import drawings
from closerlook.diagnosis.findings import Findings, find, summary
from closerlook.diagnosis.outcomes import Outcome, Outcomes
from closerlook.diagnosis.words import advice, lines
from closerlook.errors import UsageError

MINE = """
import torch
from sklearn.datasets import load_digits
from torch import nn

def network(width=16):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

def digits():
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x).float() / 8 - 1, torch.tensor(y)
    return tuple((x[a:b], y[a:b]) for a, b in ((0, 400), (400, 500), (500, 600)))
"""
WORDS = ["diagnose", "warmup", "--model", "mine:network", "--data", "mine:digits", "--lr", "0.1", "--batch", "50"]
SMALL = [*WORDS, "--steps", "8", "--seeds", "0,1", "--lengths", "2", "4"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


# Blocks.


def test_large_children_are_split_and_small_neighbours_merged() -> None:
    found = blocks_of_depth(models.build("resnet20"))
    assert 3 <= len(found) <= 5
    assert list(found)[-1].endswith("head")
    vgg = blocks_of_depth(models.build("vgg11_bn", width=0.0625))
    assert len(vgg) == 5


class Own(nn.Module):
    """A parameter of the model itself, two frozen layers, and a body that holds nearly everything."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.body = nn.Sequential(*(nn.Linear(2, 2) for _ in range(8)))
        self.head = nn.Linear(2, 2)


def test_blocks_hold_every_trained_parameter_once_and_in_order() -> None:
    for most in range(1, 8):
        found = blocks_of_depth(Own(), most)
        parts = [part for patterns in found.values() for part in patterns]
        assert len(found) <= most
        assert parts == ["scale", *(f"body.{layer}.*" for layer in range(8)), "head.*"]
    with pytest.raises(UsageError, match="nothing to warm up"):
        blocks_of_depth(nn.Linear(2, 2).requires_grad_(False))


# Settings and recipes.


def settings(**changes: Any) -> Settings:
    return settings_for("mlp", "digits", **{"lr": 0.1, "batch": 50, "steps": 20, "seeds": (0, 1, 2), **changes})


def test_as_many_steps_as_asked_and_no_more_data_than_they_take() -> None:
    few = settings()
    assert (few.data.n_train, few.epochs, few.steps) == (1000, 1, 20)
    many = settings(steps=100)
    assert many.data.n_train == 1437 - many.data.n_validation
    assert 100 <= many.steps < 100 + many.plain(0).clock.steps_per_epoch
    assert many.lengths == (many.steps // 12, many.steps // 6, many.steps // 3)


def test_every_arm_changes_one_thing() -> None:
    s = settings(lengths=(4, 8))
    recipes = recipes_of(s)
    assert len(recipes) == 3 * len(arms_of(s)) == 3 * (1 + 2 + 2 * len(s.blocks) + 2)
    plain = s.plain(1)
    for arm in arms_of(s):
        recipe = recipes[f"{arm}/1"]
        fields = ("optimizer", "schedule", "interventions")
        changed = [name for name in fields if getattr(recipe, name) != getattr(plain, name)]
        assert len(changed) == (arm != "N"), arm
        assert recipe.seeds == plain.seeds
        assert name_of(arm, s)
    assert recipes["Q/0"].optimizer.lr == 0.025
    assert [arm for arm in arms_of(s) if recipes[f"{arm}/0"].watch.sharpness_every] == ["N", "W:8"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.0}, "must all be above 0"),
        ({"seeds": (1, 1)}, "named once"),
        ({"lengths": (20,)}, "between 1 and the 20 steps"),
        ({"lengths": (0, 4)}, "between 1 and the 20 steps"),
        ({"blocks": {"head": "head.*"}}, "no trained parameter is in the block 'head'"),
        ({"model_options": {"hiden": [3]}}, "has no option hiden"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings(**changes)


# Findings.


def outcomes(accuracy: Mapping[str, float | None], **changes: Any) -> Outcomes:
    """Trainings that reach an accuracy in every seed, None where they diverge; arms not named reach that of N."""
    s = settings(lengths=(4, 8), blocks={"body": ["fc1.*", "fc2.*"], "head": "fc3.*"})
    by_arm = {}
    for arm in arms_of(s):
        reached = accuracy.get(arm, accuracy["N"])
        one = Outcome(0.1, None, 3) if reached is None else Outcome(reached, 1.0, None)
        by_arm[arm] = dict.fromkeys(s.seeds, one)
    row = {"step": 2, "threshold": 38.0, "sharpness": 50.0, "blocks": {}}
    seen = {seed: [row, {**row, "step": 4, "sharpness": 20.0}] for seed in s.seeds}
    critical = dict.fromkeys(s.seeds, 0.05)
    return Outcomes(s, 0.1, by_arm, {"N": seen, "W:8": {seed: [] for seed in s.seeds}}, critical, 1.0)


def concluded(accuracy: Mapping[str, float | None]) -> tuple[Outcomes, Findings]:
    found = outcomes(accuracy)
    return found, find(found)


def test_an_instability_and_the_block_that_brings_it() -> None:
    found, seen = concluded({"N": 0.2, "W:4": 0.79, "W:8": 0.8, "WB:body": 0.3, "WB:head": 0.75, "FB:head": 0.4})
    assert seen.unstable == [0, 1, 2]
    assert seen.length == 4
    assert seen.removes("WB:head") == [0, 1, 2]
    assert seen.removes("WB:body") == seen.removes("FB:head") == []
    assert seen.shares["WB:head"][0] == pytest.approx(0.55 / 0.6)
    assert (
        advice(found, seen) == "warm up linearly over 4 steps: that works in 3 of 3 seeds, shorter ones were not tried"
    )
    said = "\n".join(lines(found, seen))
    assert "instability at learning rate 0.1 in 3 of 3 seeds" in said
    assert "+60.0 points (+60.0 to +60.0, 90 %)" in said
    assert "warming up one block alone removes it in all 3 seeds: head" in said
    assert "freezing one block alone removes it in all seeds for no block" in said
    assert "critical learning rate of the first step 0.05, 0.05 to 0.05; in use 0.1, 2 times as much" in said
    assert "without warmup: in 3 of 3 seeds; it ends at step 4, 4, 4" in said
    assert json.dumps(seen.to_dict())
    assert [figure.id for figure in drawings(found, seen)] == ["causes", "lengths", "sharpness"]


def test_a_longer_warmup_where_the_short_one_fails_in_a_seed() -> None:
    found, _ = concluded({"N": None, "W:4": 0.8, "W:8": 0.8})
    found = with_seed(found, "W:4", 1, Outcome(0.5, 1.0, None))
    seen = find(found)
    assert seen.works == {4: (0, 2), 8: (0, 1, 2)}
    assert advice(found, seen).endswith("over 8 steps: that works in 3 of 3 seeds, 4 do not in all")
    assert "3 of 3 diverged" in lines(found, seen)[0]


def test_nothing_to_warm_up() -> None:
    found, seen = concluded({"N": 0.8, "W:4": 0.81, "W:8": 0.78})
    assert (seen.unstable, seen.states[0]) == ([], "stable")
    assert advice(found, seen) == "no warmup is needed over the first 20 steps at 0.1 (3 of 3 seeds)"
    assert [figure.id for figure in drawings(found, seen)] == ["lengths", "sharpness"]
    assert seen.to_dict()["shares"]["WB:head"]["mean"] is None
    found, seen = concluded({"N": 0.8, "W:4": 0.81, "W:8": 0.6})
    assert advice(found, seen).endswith("at 0.1 (3 of 3 seeds), and one makes it worse in 3")


def test_where_nothing_trains_warmup_is_not_called_needless() -> None:
    found, seen = concluded({"N": None, "W:4": None, "W:8": 0.12, "Q": 0.7})
    assert seen.states == dict.fromkeys((0, 1, 2), "neither trains")
    assert advice(found, seen) == (
        "lower the learning rate: at 0.025 3 of 3 seeds train; at 0.1 0 do without warmup and 0 with 8 steps of it"
    )


def with_seed(found: Outcomes, arm: str, seed: int, outcome: Outcome) -> Outcomes:
    return replace(found, by_arm={**found.by_arm, arm: {**found.by_arm[arm], seed: outcome}})


def test_a_warmup_that_does_not_reach_all_seeds_is_no_advice() -> None:
    found = with_seed(outcomes({"N": None, "W:4": 0.2, "W:8": 0.8}), "W:8", 2, Outcome(0.1, None, 9))
    seen = find(found)
    assert (seen.unstable, seen.length) == ([0, 1], None)
    assert advice(found, seen).endswith("at 0.1 no length of warmup tried (up to 8 steps) works in all")


def test_where_a_seed_trains_by_chance_the_rate_is_too_high() -> None:
    found = with_seed(outcomes({"N": 0.8, "W:8": 0.2, "Q": 0.8}), "N", 0, Outcome(0.1, None, 9))
    seen = find(found)
    assert list(seen.states.values()) == ["unstable", "worse with warmup", "worse with warmup"]
    found = with_seed(found, "W:8", 0, Outcome(0.1, None, 9))
    assert advice(found, find(found)).endswith("at 0.1 2 do without warmup and 2 with 8 steps of it")


def test_one_seed_has_no_interval() -> None:
    assert summary([0.3]) == {"mean": 0.3, "low": None, "high": None, "n": 1, "level": 0.9}


# The command.


def answered(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[Any, str]:
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def contents(root: Path) -> dict[str, bytes]:
    apart = {"environment.json", "timings.jsonl", "LOCK", "report.html"}  # the page names machine and times
    files = [path for path in root.rglob("*") if path.is_file() and path.name not in apart]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_priced_run_reused_and_resumed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    price, _ = answered(capsys, [*SMALL, "--dry-run"])
    assert not (place / "runs").exists()
    assert (price["runs"], price["of"]) == (18, 18)
    assert price["optimizer_steps"] == 18 * 8
    assert price["seconds"] > 0
    assert price["blocks"] == {"0": ["0.*"], "2": ["2.*"]}

    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=place, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert len(list((place / "runs").glob("train-*/DONE"))) == 3
    found, err = answered(capsys, SMALL)
    assert err.count("reused") == 3
    assert "15 of 18 trainings left" in err
    folder = place / found["folder"]
    assert {"diagnosis.json", "report.html", "figures"} <= {path.name for path in folder.iterdir()}
    assert found["findings"]["states"].keys() == {"0", "1"}
    assert found["advice"] in (folder / "report.html").read_text()
    assert "<svg" in (folder / "report.html").read_text()

    answered(capsys, [*SMALL, "--runs", "undisturbed"])
    assert contents(place / "runs") == contents(place / "undisturbed")
    again, err = answered(capsys, SMALL)
    assert "all 18 trainings are done" in err
    assert again == found
    assert main([*SMALL, "--dry-run"]) == 0
    assert "all 18 trainings are done" in capsys.readouterr().out


KILLED = """
import os, signal
from pathlib import Path
import torch
from closerlook.diagnosis import run, settings_for

torch.set_num_threads(1)
ended = []

def progress(event):
    ended.append(event)
    if len(ended) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

chosen = settings_for("mine:network", "mine:digits", lr=0.1, batch=50, steps=8, seeds=(0, 1), lengths=(2, 4))
run(chosen, Path("runs"), 1, progress)
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--block", "head"], "cannot read --block 'head'"),
        (["--block", "head=tail.*"], "no trained parameter is in the block 'head'"),
        (["--lengths", "8"], "between 1 and the 8 steps"),
        (["--seeds", "x"], "cannot read the seeds"),
        (["--model", "mine:net"], "did you mean network?"),
        (["--model-options", "wide=3"], "network(width=16)"),
        (["--data", "digit"], "digits"),
    ],
)
def test_wrong_words(place: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main([*SMALL, *words]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert not (place / "runs").exists()


def test_a_rate_is_required(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS[:6], "--batch", "50"]) == 2
    assert "--lr" in capsys.readouterr().err

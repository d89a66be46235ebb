"""`study`, `verdict`, `ls`, `show`, `doctor`."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from closerlook.cli import doctor as doctor_module
from closerlook.cli import main
from closerlook.cli import study as study_module
from closerlook.errors import StepFailedError
from closerlook.evidence import RULES
from closerlook.models import MODELS


def run(capsys, *words):
    """Exit status, parsed JSON and stderr of a command."""
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else None, err


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOSERLOOK_DATA", str(tmp_path))
    return tmp_path


def test_study_is_priced_without_doing_anything(place, capsys):
    status, found, _ = run(capsys, "study", "restarts", "--scale", "small", "--seeds", "100,102-103", "--dry-run")
    assert status == 0
    assert found["seeds"] == [100, 102, 103]
    assert found["left"]["runs"] == len(found["steps"]) == sum(kind["runs"] for kind in found["kinds"])
    assert found["core_seconds"] > 60
    assert {"run", "state", "steps", "images", "flops", "recipe"} <= set(found["steps"][0])
    assert list(place.iterdir()) == []
    assert main(["study", "restarts", "--scale", "paper", "--dry-run"]) == 0
    assert "left to do: 1" in capsys.readouterr().out


def test_study_hands_over_and_answers(place, capsys, monkeypatch):
    @dataclass
    class Outcome:
        verdict: object
        report: Path
        folder: Path

    class Said:
        def to_dict(self):
            return {"answer": "supported"}

        def __str__(self):
            return "Supported."

    calls = []

    def run_study(plan, root, jobs, progress):
        calls.append((plan.name, plan.scale, plan.seeds, root, jobs))
        return Outcome(Said(), root / "report.html", root)

    monkeypatch.setattr(study_module, "run_study", run_study)
    words = ["study", "restarts", "--scale", "smoke", "--seeds", "7", "--jobs", "3", "--runs", "kept"]
    (place / "data").mkdir()
    status, found, _ = run(capsys, *words, "--data-dir", "data")
    assert status == 0
    assert found == {"verdict": {"answer": "supported"}, "report": "kept/report.html", "folder": "kept"}
    assert calls == [("restarts", "smoke", (7,), Path("kept"), 3)]
    assert os.environ["CLOSERLOOK_DATA"] == str(place / "data")
    assert main(words) == 0
    assert capsys.readouterr().out == "Supported.\n\nreport: kept/report.html\n"


def test_a_failed_study_is_a_failure(capsys, monkeypatch):
    def run_study(*given):
        raise StepFailedError("steps failed: 1")

    monkeypatch.setattr(study_module, "run_study", run_study)
    assert main(["study", "restarts", "--scale", "smoke"]) == 1
    assert capsys.readouterr().err.endswith("closerlook: steps failed: 1\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["restart"], "did you mean restarts?"),
        (["restarts", "--data", "fashon"], "did you mean fashion?"),
        (["restarts", "--seeds", "1-x"], "cannot read the seeds '1-x'"),
        (["restarts", "--seeds", "3-1"], "the seeds '3-1' are empty"),
        (["restarts", "--seeds", "1,1"], "name one twice"),
        (["restarts", "--scale", "small", "--data", "digits"], "digits"),
        (["restarts", "--jobs", "0"], "0 is below 1"),
        (["restarts", "--data-dir", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_wrong_studies(words, said, capsys):
    assert main(["study", *words]) == 2
    out, err = capsys.readouterr()
    assert said in " ".join(err.replace("│", " ").split())
    assert out == ""


def table(rule: str) -> str:
    """A table in which every part is a clear yes."""
    chosen = RULES[rule]
    rows = ["arm,seed,quantity,value"]
    for part in chosen.parts:
        for seed in range(100, 105):
            rows += [f"{part.arm},{seed},{part.quantity},{0.9 + seed / 1e5}"]
            rows += [f"{part.baseline},{seed},{part.quantity},{0.2 + seed / 1e6}"]
    for seed in range(100, 105):
        rows += [f"I,{seed}-x,seed_barrier,1.0", f"R,{seed},self_barrier,0.001"]
    return "\n".join(dict.fromkeys(rows)) + "\n"


def test_verdict(place, capsys):
    (place / "table.csv").write_text(table("restarts"))
    status, found, _ = run(capsys, "verdict", "table.csv", "--rule", "restarts", "--setting", "demonstration")
    assert (status, found["answer"], found["setting"]) == (0, "contradicted", "demonstration")
    assert main(["verdict", "table.csv", "--rule", "restarts"]) == 0
    assert capsys.readouterr().out.startswith("Contradicted: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.csv", "--rule", "restarts"], "no table at none.csv"),
        (["table.csv", "--rule", "restart"], "no rule 'restart'; did you mean restarts"),
        (["table.csv"], "--rule"),
        (["table.csv", "--rule", "restarts"], "exactly arm, seed, quantity, value"),
        (["table.csv", "--rule", "restarts", "--setting", "tunned"], "invalid choice 'tunned'"),
    ],
)
def test_wrong_tables(place, words, said, capsys):
    (place / "table.csv").write_text("arm,seed,quantity\nR,100,accuracy\n")
    assert main(["verdict", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_ls_and_show_tell_of_everything(capsys):
    status, found, _ = run(capsys, "ls")
    assert status == 0
    assert list(found) == ["studies", "models", "data", "rules", "interventions"]
    names = {row["name"] for rows in found.values() for row in rows}
    assert {"restarts", "digits", "freeze", "group_rate", *MODELS} <= names
    assert list(run(capsys, "ls", "rules")[1]) == ["rules"]
    for name in names:
        status, told, _ = run(capsys, "show", name)
        assert (status, told["name"]) == (0, name)
        assert len(told) > 1
    assert main(["show", "restarts"]) == 0
    assert "E3: accuracy R - K, margin 0.005" in capsys.readouterr().out
    assert main(["show", "freeze"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{part}. " in shown for part in ("What", "Formula", "Norm layers", "Cost", "Source"))
    assert "\nend     required\n" in shown
    assert "norm    default 'train'" in shown
    assert main(["ls"]) == 0
    assert "parameters" in capsys.readouterr().out
    assert main(["show", "vgg"]) == 2
    assert "did you mean vgg" in capsys.readouterr().err


def test_doctor(place, capsys, monkeypatch):
    status, found, _ = run(capsys, "doctor")
    assert status == 0
    assert {"python", "torch", "processor", "threads", "bf16", "disk", "runs"} <= {check["name"] for check in found}
    assert list(place.iterdir()) == []
    monkeypatch.setenv("CLOSERLOOK_DATA", "nowhere")
    assert main(["doctor"]) == 1
    assert "CLOSERLOOK_DATA: set CLOSERLOOK_DATA to a folder, or unset it" in capsys.readouterr().out
    monkeypatch.delenv("CLOSERLOOK_DATA")
    monkeypatch.setattr(doctor_module.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1e6}))
    assert main(["doctor"]) == 1
    assert "free some space" in capsys.readouterr().out

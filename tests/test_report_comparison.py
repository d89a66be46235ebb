"""Several reports of one study side by side: numbers, what differs, what is refused, and what holds across set-ups."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from closerlook.cli import main
from closerlook.errors import StoreError, UsageError
from closerlook.evidence import RULES, verdict
from closerlook.studies.comparison import compared
from closerlook.studies.setups import answers, differing, read_setup, together
from closerlook.studies.side_by_side import side_by_side

CONTRADICTED, SUPPORTED = {"R": 0.9, "K": 0.2, "S": 0.2}, {"R": 0.2, "K": 0.9, "S": 0.1}
NETWORK = "vgg11_bn, width 0.25"


def judged(rule: str, levels: dict[str, float], seeds: tuple[int, ...]) -> dict[str, Any]:
    rows = [
        {"arm": arm, "seed": seed, "quantity": quantity, "value": levels[arm] + number * ord(arm[-1]) / 1e6}
        for arm, quantity in dict.fromkeys(RULES[rule].compared()) for number, seed in enumerate(seeds)
    ]  # fmt: skip
    rows += [{"arm": "R", "seed": seed, "quantity": "self_barrier", "value": 0.0} for seed in seeds]
    rows += [{"arm": "I", "seed": "100-101", "quantity": "seed_barrier", "value": 1.0}]
    return verdict(rows, rule, "demonstration").to_dict()


def study(
    root: Path, levels: dict[str, float], data: str = "fashion", network: str = NETWORK, name: str = "restarts",
    rule: str = "restarts-small", seeds: tuple[int, ...] = (100, 101, 102), processor: str = "P", **changed: Any,
) -> Path:  # fmt: skip
    """The folder of a study, whose runs are elsewhere."""
    folder = root / f"study-{name}-small-{len(list(root.glob('*'))):08d}"
    folder.mkdir(parents=True)
    settings = [["data", f"{data}, 5000 training images a seed", "fixed"], ["network", network, "fixed"]]
    plan = {
        "study": name,
        "scale": "small",
        "seeds": seeds,
        "data": None,
        "settings": settings,
        "runs": {"R": "train-1"},
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "verdict.json").write_text(json.dumps({**judged(rule, levels, seeds), "runs": {}, **changed}))
    environment = {"processor": processor, "packages": {"torch": "2.13.0"}}
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def whole(root: Path, **folders: Path) -> Path:
    """The folder of all studies, beside theirs."""
    folder = root / f"study-all-small-{len(list(root.glob('*'))):08d}"
    folder.mkdir()
    plan = {"study": "all", "scale": "small", "seeds": None, "data": None}
    (folder / "plan.json").write_text(json.dumps(plan | {"studies": {name: at.name for name, at in folders.items()}}))
    return folder


def words(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def table(report: Any, name: str) -> dict[str, tuple[Any, ...]]:
    """Rows of a table by their first cell."""
    (found,) = (each for each in report.tables if each.id == name)
    return {row[0]: row[1:] for row in found.rows}


def test_numbers_stand_side_by_side(tmp_path: Path) -> None:
    folders = [study(tmp_path, CONTRADICTED), study(tmp_path, {"R": 0.5, "K": 0.25, "S": 0.25}, data="digits")]
    report = compared(folders)
    rows = table(report, "parts")
    assert list(rows) == ["E0", "E1", "E2", "E3"]
    stored = [json.loads((folder / "verdict.json").read_text())["parts"] for folder in folders]
    for number, (name, row) in enumerate(rows.items()):
        for told, parts in zip(row[:2], stored, strict=True):
            part = parts[number]
            assert part["name"] == name
            wanted = f"{part['answer']}: {part['effect']:.3g} ({part['low']:.3g} to {part['high']:.3g})"
            assert told.replace("\N{MINUS SIGN}", "-") == wanted
        assert row[2:] == (part["margin"], part["unit"])
    assert rows["E1"][0].startswith("yes: 0.7 (")
    assert table(report, "verdicts") == {
        "A: fashion": ("contradicted", 3, True, "demonstration"),
        "B: digits": ("contradicted", 3, True, "demonstration"),
    }
    assert table(report, "controls") == dict.fromkeys(("seed_barrier", "self_barrier"), ("passed", "passed"))
    drawn = report.figures[0].svg
    assert drawn.count("A: fashion ▲") == drawn.count("B: digits ▲") == 4
    assert report.notes[0].startswith("A: fashion. Contradicted: ")


def test_what_differs_stands_apart_from_what_is_the_same(tmp_path: Path) -> None:
    folders = [
        study(tmp_path, CONTRADICTED),
        study(tmp_path, CONTRADICTED, data="digits", seeds=(100, 101, 102, 103), processor="Q"),
    ]
    report = compared(folders)
    assert table(report, "differing") == {
        "folder": tuple(folders),
        "data": ("fashion, 5000 training images a seed", "digits, 5000 training images a seed"),
        "seeds": ([100, 101, 102], [100, 101, 102, 103]),
        "processor": ("P", "Q"),
    }
    same = table(report, "same")
    assert same["network"] == (NETWORK,)
    assert same["rule"] == ("restarts-small, version 1",)
    assert same["packages: torch"] == ("2.13.0",)
    assert not set(same) & set(table(report, "differing"))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([{}, {"data": "digits"}], ["A: fashion", "B: digits"]),
        ([{}, {"network": "resnet8; 5 epochs"}], ["A: vgg11_bn", "B: resnet8"]),
        ([{}, {"processor": "Q"}], ["A: P", "B: Q"]),
        ([{}, {"seeds": (7, 8, 9)}], ["A: 100-101-102", "B: 7-8-9"]),
        ([{}, {}], ["A", "B"]),
        ([{}, {}, {"data": "digits", "network": "resnet8"}], ["A: fashion", "B: fashion", "C: digits"]),
    ],
)
def test_set_ups_are_named_by_what_tells_them_apart(
    changes: list[dict[str, Any]], names: list[str], tmp_path: Path
) -> None:
    folders = [study(tmp_path, CONTRADICTED, **change) for change in changes]
    assert list(together([read_setup(folder) for folder in folders])) == names


def test_the_same_set_up_does_not_count_twice(tmp_path: Path) -> None:
    def told(*changes: dict[str, Any]) -> dict[str, str]:
        return answers(together([read_setup(study(tmp_path, **change)) for change in changes]))

    here, there = {"levels": CONTRADICTED}, {"levels": CONTRADICTED, "processor": "Q"}
    assert told(here, there) == {"A: P and B: Q": "contradicted"}
    assert told(here, {"levels": SUPPORTED, "processor": "Q"}) == {"A: P and B: Q": "not decided"}
    assert told(here, {**there, "seeds": (100, 101)}) == {"A: P and B: Q": "contradicted"}
    assert told({**here, "seeds": (100, 101)}) == {"A": "numbers only"}
    assert told(here, {**there, "data": "digits"}, {**there, "network": "resnet8"}) == {
        "A: fashion": "contradicted", "B: digits": "contradicted", "C: fashion": "contradicted",
    }  # fmt: skip


def test_three_set_ups_can_give_a_general_verdict(tmp_path: Path) -> None:
    def general(*given: tuple[dict[str, float], str]) -> tuple[str, str]:
        folders = [study(tmp_path, levels, data) for levels, data in given]
        told = compared(folders).verdict
        assert told is not None
        assert (told["claim"], told["rule"]) == (RULES["restarts-small"].claim, "restarts-small")
        return told["answer"], told["words"]

    two = ((CONTRADICTED, "fashion"), (CONTRADICTED, "digits"))
    assert general(*two) == (
        "not decided", "Not decided across 2 set-ups: a general verdict needs at least 3 that were judged. "
        "A: fashion, contradicted; B: digits, contradicted.",
    )  # fmt: skip
    assert general(*two, (CONTRADICTED, "cifar10"))[0] == "contradicted"
    assert general(*two, (CONTRADICTED, "digits"))[0] == "not decided"  # one of the two again
    answer, said = general(*two, (SUPPORTED, "cifar10"))
    assert answer == "not decided"
    assert said.endswith("(contradicted in A: fashion, B: digits; supported in C: cifar10).")


def test_studies_that_ask_different_questions_are_not_compared(tmp_path: Path) -> None:
    one = study(tmp_path, CONTRADICTED)
    page = tmp_path / "page.html"
    with pytest.raises(UsageError, match="different questions are not compared"):
        side_by_side([one, study(tmp_path, CONTRADICTED, name="warmup")], page)
    with pytest.raises(
        UsageError, match=r"verdicts of different rules .*restarts-small, version 1; .*restarts, version 1"
    ):
        side_by_side([one, study(tmp_path, CONTRADICTED, rule="restarts")], page)
    with pytest.raises(UsageError, match="version 2"):
        side_by_side([one, study(tmp_path, CONTRADICTED, version=2)], page)
    assert not page.exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("plan.json", "{"), ("plan.json", "[]"), ("plan.json", '{"study": "restarts"}'), ("verdict.json", None),
        ("verdict.json", '{"rule": "restarts-small"}'), ("verdict.json", "[1]"), ("environment.json", "[1]"),
    ],
)  # fmt: skip
def test_damage_is_named(file: str, content: str | None, tmp_path: Path) -> None:
    good, bad = study(tmp_path, CONTRADICTED), study(tmp_path, CONTRADICTED)
    (bad / file).write_text(content) if content else (bad / file).unlink()
    with pytest.raises(StoreError, match=bad.name):
        side_by_side([good, bad], tmp_path / "page.html")


def test_the_command_writes_one_page_and_changes_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [study(Path("runs"), CONTRADICTED), study(Path("other"), CONTRADICTED, data="digits")]
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    command = ["report", *map(str, folders), "-o", "comparison.html"]
    assert main(command) == 0
    assert capsys.readouterr().out == "comparison.html\n"
    page = Path("comparison.html").read_text()
    assert words(page).startswith("Restarts: 2 reports side by side")
    assert "closerlook " + " ".join(command) in words(page)
    assert {path: path.read_bytes() for path in before} == before
    assert len([path for path in Path().rglob("*") if path.is_file()]) == len(before) + 1
    assert main(["report", str(folders[0]), "train-1"]) == 2
    assert "is compared with studies, not with runs" in capsys.readouterr().err


def test_all_studies_are_compared_study_by_study(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    folders = [
        whole(
            root, restarts=study(root, CONTRADICTED, data=data),
            warmup=study(root, CONTRADICTED, name="warmup", **more), **{extra: study(root, CONTRADICTED, name=extra)},
        )
        for root, data, extra, more in (
            (here, "fashion", "distillation", {}), (there, "digits", "resilience", {"version": 2}),
        )
    ]  # fmt: skip
    page = side_by_side(folders, tmp_path / "page.html").read_text()
    text = words(page)
    assert text.startswith("All studies: 2 reports side by side")
    assert "Restarts: 2 reports side by side" in text
    assert text.count("A: fashion, contradicted; B: digits, contradicted.") == 2  # with the answers, and as the verdict
    assert 'id="restarts-figure-setups"' in page
    assert 'id="warmup"' not in page
    assert re.search(r"warmup verdicts of different rules .* are not compared", text)
    assert "distillation not in every folder" in text
    assert "resilience not in every folder" in text
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    alone = side_by_side([folders[0], study(there, CONTRADICTED, data="digits")], tmp_path / "page.html").read_text()
    assert words(alone).startswith("Restarts: 2 reports side by side")


def test_studies_come_in_the_order_of_the_paper(tmp_path: Path) -> None:
    names = ("distillation", "own", "restarts", "resilience")
    folders = [
        whole(root, **{name: study(root, CONTRADICTED, name=name, data=data) for name in names})
        for root, data in ((tmp_path / "here", "fashion"), (tmp_path / "there", "digits"))
    ]
    page = side_by_side(folders, tmp_path / "page.html").read_text()
    assert re.findall(r'<section id="(\w+)" class="study">', page) == ["resilience", "restarts", "distillation"]
    assert "own not a study of this version" in words(page)
    with pytest.raises(StoreError, match="a study 'own', which this version does not have"):
        read_setup(study(tmp_path, CONTRADICTED, name="own"))


def test_folders_of_earlier_versions_are_read(tmp_path: Path) -> None:
    folder = study(tmp_path, CONTRADICTED)
    plan = json.loads((folder / "plan.json").read_text())
    del plan["settings"]
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "environment.json").unlink()
    assert "processor" not in read_setup(folder).settings
    assert read_setup(folder).settings["network"].startswith("vgg11_bn")
    run = tmp_path / "train-1"
    run.mkdir()
    (run / "environment.json").write_text('{"processor": "Q", "earlier": []}')
    found = read_setup(folder)
    assert found.settings["processor"] == "Q"
    assert "earlier" not in found.settings
    assert "processor" in differing([found, read_setup(study(tmp_path, CONTRADICTED))])

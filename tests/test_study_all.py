"""All studies in one launch: what each gives alone, one page of all, and what is left when one of them fails."""

import dataclasses
import html
import json
import pickle
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from closerlook import figures
from closerlook.cli import main
from closerlook.errors import StepFailedError, StoreError, UsageError
from closerlook.evidence import RULES, Verdict, verdict
from closerlook.evidence.deciding import deciding
from closerlook.launch import Event, graph
from closerlook.report import Collection, Figure, Report, Section, Table
from closerlook.report.collection import nested, render
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import DataSpec, ModelSpec, OptimizerSpec, Recipe, Seeds, TrainRecipe
from closerlook.runs.store import Store, only_one
from closerlook.studies import STUDIES, Results, Study, StudyPlan
from closerlook.studies.run import run_study, study_folder
from closerlook.studies.together import ALL, WholeOutcome, conclude_all, plan_all, run_all

# The arms of two rules, so that one claim is contradicted and the other supported.
LEVELS = {
    "restarts": {"R": 0.9, "K": 0.2, "S": 0.2},
    "warmup": {"N": 0.1, "W": 0.9, "WD": 0.9, "WS": 0.1, "P": 0.1, "FD": 0.1},
}
REAL = dict(STUDIES)
SEEDS = {"restarts": (0, 1, 2), "warmup": (0, 1, 2, 3, 4)}


def training(seed: int, size: int) -> TrainRecipe:
    data = DataSpec(name="synthetic", n_train=40, n_validation=10, n_statistics=10, n_read=10, n_test=10, seed=seed)
    model = ModelSpec(name="mlp", options={"hidden": (size,)})
    return TrainRecipe(
        data=data, model=model, optimizer=OptimizerSpec(lr=0.1), epochs=1, batch_size=20, seeds=Seeds.of(seed)
    )


def toy(name: str) -> Study:
    """A study of tiny trainings, the first of which is every toy's; planted effects, scattered by what was stored."""

    def plan(scale: Any, seeds: Any = None, data: str | None = None) -> StudyPlan:
        chosen = SEEDS[name] if seeds is None else tuple(seeds)
        roles: dict[str, Recipe] = {f"own/{seed}": training(seed, len(name)) for seed in chosen}
        roles["shared"] = training(chosen[0], 3)
        rows = (("data", f"{data or 'synthetic'}, 40 images", "fixed"),)
        return StudyPlan(name, scale, chosen, f"{name}-small", "demonstration", roles, rows, {}, data)

    def table(results: Results) -> list[dict[str, Any]]:
        rule, rows = RULES[results.plan.rule], dict[tuple[str, str, str], float]()
        for seed in results.plan.seeds:
            loss = results.folder(f"own/{seed}").journal()[-1]["loss"]
            for arm, quantity in rule.compared():
                rows[arm, str(seed), quantity] = LEVELS[name][arm] + (0.001 + 0.001 * LEVELS[name][arm]) * loss
            rows |= {("R", str(seed), "self_barrier"): 0.0, ("I", f"{seed}-x", "seed_barrier"): 1.0}
        return [
            dict(zip(("arm", "seed", "quantity", "value"), (*key, value), strict=True)) for key, value in rows.items()
        ]

    def drawn(results: Results) -> tuple[Figure, ...]:
        svg = figures.to_svg(figures.norms([0, 1], {name: [1, 2]}), name="training")
        return (Figure("training", "Training", f"of {name}", svg),)

    def tables(results: Results) -> tuple[Table, ...]:
        return (Table("accuracy", "Accuracy", ("arm", "value"), (("R", 0.5),)),)

    return Study(plan, f"What does {name} do?", table, drawn, tables, ("A note.",))


@pytest.fixture(autouse=True, scope="module")
def toys() -> Iterator[None]:
    """Two toys take the place of the studies, which come back in their order."""
    studies = cast(dict[str, Study], STUDIES)
    studies.clear()
    studies.update({name: toy(name) for name in SEEDS})
    yield
    studies.clear()
    studies.update(REAL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toys: None) -> tuple[Path, WholeOutcome, list[str]]:
    root, events = tmp_path_factory.mktemp("whole"), list[str]()
    outcome = run_all(plan_all("smoke"), root, 1, lambda event: events.append(event.run))
    return root, outcome, events


def only_reused(event: Event) -> None:
    assert event.outcome == "reused"


def rest(page: str) -> str:
    """A page without what tells when and where it was made."""
    return re.sub(r'<section id="(environment|cost)">.*?</section>', "", page, flags=re.DOTALL)


def test_every_recipe_runs_once_wherever_it_comes_from(whole: tuple[Path, WholeOutcome, list[str]]) -> None:
    _, _, events = whole
    plans = plan_all("smoke").plans
    assert len(events) == len(set(events)) == len({run_id(each) for plan in plans for each in plan.recipes})
    assert len(events) == sum(len(plan.roles) for plan in plans) - 1  # the shared one


def test_each_study_is_what_it_is_alone(whole: tuple[Path, WholeOutcome, list[str]], tmp_path: Path) -> None:
    root, outcome, _ = whole
    assert list(outcome.studies) == list(SEEDS)
    for name in SEEDS:
        alone = run_study(STUDIES[name].plan("smoke"), tmp_path, jobs=1, progress=lambda event: None)
        there = outcome.studies[name].folder
        files = {path.relative_to(there) for path in there.rglob("*") if path.is_file()}
        assert files == {path.relative_to(alone.folder) for path in alone.folder.rglob("*") if path.is_file()}
        for file in files - {Path("report.html")}:
            assert (there / file).read_bytes() == (alone.folder / file).read_bytes(), file
        assert rest((there / "report.html").read_text()) == rest(alone.report.read_text())
        # Times are stored with the runs: on the same runs the whole page is the same.
        before = (there / "report.html").read_bytes()
        run_study(STUDIES[name].plan("smoke"), root, jobs=1, progress=only_reused)
        assert (there / "report.html").read_bytes() == before


def test_the_page_of_all_is_whole_and_its_links_lead_somewhere(whole: tuple[Path, WholeOutcome, list[str]]) -> None:
    root, outcome, _ = whole
    assert outcome.folder == plan_all("smoke").folder(root)
    page = outcome.report.read_text()
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]+)', page)
    assert set(references) <= set(ids)
    assert {f"{name}-{part}" for name in SEEDS for part in ("verdict", "figure-training", "table-accuracy")} <= set(ids)
    assert {*SEEDS, "answers", "cost", "environment", "command"} <= set(ids)
    assert not re.search(r"<(script|link|img|iframe)\b", page)
    assert page.count("<h1>") == 1
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_the_answers_come_first(whole: tuple[Path, WholeOutcome, list[str]]) -> None:
    _, outcome, _ = whole
    page = outcome.report.read_text()
    answers = " ".join(re.sub(r"<[^>]*>", " ", page[page.index('id="answers"') : page.index('id="restarts"')]).split())
    for name, study in outcome.studies.items():
        assert study.verdict.claim in answers
        assert study.verdict.answer in answers
        assert f'href="#{name}"' in page
        for ground in deciding(study.verdict):
            assert ground.says in answers
    assert "contradicted provisional: fewer than five seeds" in answers
    assert "supported ▲ yes : " in answers  # five seeds are not provisional
    assert "5 seeds: 0, 1, 2, 3, 4 demonstration (chosen because the effect shows there)" in answers
    gain = outcome.studies["restarts"].verdict.parts[1]
    assert f"{gain.effect.mean:.3g} ({gain.effect.intervals[0].low:.3g} to" in answers
    assert "margin 0.1" in answers
    assert "closerlook study all --scale smoke" in page


def test_where_the_runs_were_made_is_told_once(whole: tuple[Path, WholeOutcome, list[str]]) -> None:
    root, outcome, events = whole
    made = Store(root).folder(events[0]).made_in()
    assert made is not None
    assert made["processor"]
    assert made["threads"] == 1
    page = html.unescape(outcome.report.read_text())
    assert page.count("What the runs ran on") == 2  # a table's name and its label
    assert made["processor"] in page[page.index('id="environment"') :]


def test_cpu_seconds_count_a_shared_run_once(whole: tuple[Path, WholeOutcome, list[str]]) -> None:
    root, outcome, events = whole
    page = outcome.report.read_text()
    assert "restarts: 4 runs, CPU seconds of all" in page
    assert "warmup: 5 runs, 1 more shared with a study above, CPU seconds of all" in page
    total = sum(Store(root).folder(run).seconds()[1] for run in events)
    shown = re.search(r'all together</th><td class="number">([\d.]+) s', page)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(total, abs=0.16)


@pytest.mark.parametrize("name", list(REAL))
def test_what_goes_to_the_workers_and_back_can_be_sent(name: str) -> None:
    plan = REAL[name].plan("smoke")
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_outcomes_come_back_from_a_worker(whole: tuple[Path, WholeOutcome, list[str]]) -> None:
    outcome = whole[1].studies["restarts"]
    assert pickle.loads(pickle.dumps(outcome)) == outcome


def test_verdicts_are_stored_by_study(whole: tuple[Path, WholeOutcome, list[str]]) -> None:
    _, outcome, _ = whole
    stored = json.loads((outcome.folder / "verdicts.json").read_text())
    assert list(stored) == sorted(SEEDS)
    for name, study in outcome.studies.items():
        assert stored[name] == {"folder": study.folder.name, **json.loads(json.dumps(study.verdict.to_dict()))}


def test_report_writes_all_again(
    whole: tuple[Path, WholeOutcome, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, outcome, _ = whole
    before = outcome.report.read_bytes()
    outcome.report.unlink()
    assert main(["report", str(outcome.folder)]) == 0
    assert capsys.readouterr().out.strip() == str(outcome.report)
    assert outcome.report.read_bytes() == before
    plan = json.loads((outcome.folder / "plan.json").read_text())
    try:
        (outcome.folder / "plan.json").write_text(json.dumps({**plan, "seeds": [7]}))
        assert main(["report", str(outcome.folder)]) == 1
        assert "another version of the study; closerlook study all makes it anew" in capsys.readouterr().err
    finally:
        (outcome.folder / "plan.json").write_text(json.dumps(plan))


def failing(monkeypatch: pytest.MonkeyPatch, *plans: StudyPlan) -> None:
    """Let the trainings fail that are a study's own."""
    runs = {run_id(recipe) for plan in plans for role, recipe in plan.roles.items() if role != "shared"}
    run_step: Callable[[str], str] = graph.run_step

    def step(folder: str) -> str:
        if Path(folder).name in runs:
            raise ValueError("no luck")
        return run_step(folder)

    monkeypatch.setattr(graph, "run_step", step)


def test_a_study_that_fails_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = str(tmp_path)
    command = ["study", "all", "--scale", "smoke", "--jobs", "1", "--runs", runs]
    made = plan_all("smoke")
    with monkeypatch.context() as patch:
        failing(patch, made.plans[0])
        assert main([*command, "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert list(found["verdicts"]) == ["warmup"]
    assert found["missing"] == {"restarts": "steps not finished: 3"}
    told = err[err.index("closerlook: ") :]
    assert told.startswith("closerlook: no verdict of restarts: steps not finished: 3\nsteps failed: 3;")
    assert told.count("ValueError: no luck") == 3
    assert not (study_folder(made.plans[0], tmp_path) / "report.html").exists()
    assert (study_folder(made.plans[1], tmp_path) / "report.html").exists()
    page = Path(found["report"]).read_text()
    assert "steps not finished: 3" in page
    assert 'id="restarts"' not in page
    assert main([*command]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(f"report: {found['report']}\n")
    assert out.startswith("restarts: Contradicted: ")
    assert err.count(" reused") == len(made.plans[1].roles)
    assert "steps not finished" not in Path(found["report"]).read_text()


def test_where_no_study_can_be_judged_the_error_is_the_launch_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan_all("smoke")
    failing(monkeypatch, *made.plans)
    with pytest.raises(StepFailedError, match="steps failed: 8; not started: 0"):
        run_all(made, tmp_path, 1, lambda event: None)
    assert not (made.folder(tmp_path) / "report.html").exists()


def test_a_damaged_study_takes_no_other_with_it(
    whole: tuple[Path, WholeOutcome, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outcome, _ = whole

    def damaged(results: Results) -> list[dict[str, Any]]:
        raise StoreError("a file is damaged")

    monkeypatch.setitem(STUDIES, "warmup", dataclasses.replace(STUDIES["warmup"], table=damaged))  # type: ignore[arg-type]
    found = conclude_all(plan_all("smoke"), root)
    assert found.missing == {"warmup": "a file is damaged"}
    assert list(found.studies) == ["restarts"]
    assert "a file is damaged" in found.report.read_text()
    monkeypatch.undo()
    conclude_all(plan_all("smoke"), root)
    assert "a file is damaged" not in outcome.report.read_text()


@pytest.mark.parametrize("name", [*SEEDS, ALL])
def test_one_command_at_a_time_works_on_a_study(name: str, tmp_path: Path) -> None:
    made = plan_all("smoke")
    folders = {plan.name: study_folder(plan, tmp_path) for plan in made.plans} | {ALL: made.folder(tmp_path)}
    with only_one(folders[name] / "LOCK"), pytest.raises(StoreError, match=f"another command works on .*study-{name}"):
        run_all(made, tmp_path, 1, lambda event: None)


def test_seeds_and_data_hold_for_every_study(tmp_path: Path) -> None:
    own, other = plan_all("smoke"), plan_all("smoke", (5, 6), "digits")
    assert [plan.seeds for plan in own.plans] == list(SEEDS.values())
    assert {plan.seeds for plan in other.plans} == {(5, 6)}
    assert {plan.data for plan in other.plans} == {"digits"}
    assert own.folder(tmp_path) != other.folder(tmp_path)
    assert own.folder(tmp_path).name.startswith("study-all-smoke-")
    assert own.command == "closerlook study all --scale smoke"
    assert other.command == "closerlook study all --scale smoke --seeds 5,6 --data digits"


def test_all_are_priced_without_doing_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["study", "all", "--scale", "smoke", "--dry-run"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["left"]["runs"] == len(plan_all("smoke").recipes) == 9
    assert sum(one["left"]["runs"] for one in found["studies"].values()) == 10
    assert main(command) == 0
    assert "warmup    0, 1, 2, 3, 4  warmup-small        6" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def judged(name: str, levels: dict[str, float], seeds: int = 3, **changed: Any) -> Verdict:
    rule = RULES[name]
    rows = [
        {"arm": arm, "seed": seed, "quantity": quantity, "value": levels[arm] + seed * ord(arm[-1]) / 1e6}
        for arm, quantity in dict.fromkeys(rule.compared()) for seed in range(seeds)
    ]  # fmt: skip
    rows += [{"arm": "I", "seed": "x", "quantity": "seed_barrier", "value": changed.get("seed_barrier", 1.0)}]
    rows += [{"arm": "R", "seed": seed, "quantity": "self_barrier", "value": 0.0} for seed in range(seeds)]
    return verdict(rows, name)


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (judged("restarts", {"R": 0.9, "K": 0.2, "S": 0.2}), ["E1", "E2", "E3"]),  # all three contradict
        (judged("restarts", {"R": 0.2, "K": 0.9, "S": 0.1}), ["E1", "E3"]),  # either supports
        (judged("restarts", {"R": 0.9, "K": 0.2, "S": 0.899}), ["E0", "E1"]),  # no gain: the gate, and what it asks
        (judged("restarts", {"R": 0.9, "K": 0.2, "S": 0.2}, seeds=2), ["E0", "E1", "E2", "E3"]),
        (judged("restarts", {"R": 0.9, "K": 0.2, "S": 0.2}, seed_barrier=0.0), ["E0", "E1", "E2", "E3"]),
        (judged("warmup-small", LEVELS["warmup"], seeds=5), ["H(WD)", "H(WS)", "H(P)"]),
        (judged("warmup-small", dict.fromkeys(LEVELS["warmup"], 0.5), seeds=5), ["E0"]),  # no benefit to explain
    ],
)
def test_what_a_verdict_hangs_on(found: Verdict, names: list[str]) -> None:
    grounds = deciding(found)
    assert [ground.name for ground in grounds] == names
    answers = {part.part.name: part.effect.answer for part in found.parts}
    assert all(ground.answer == answers[ground.name] for ground in grounds)
    assert all([part.part.name for part in ground.parts] == [ground.name] for ground in grounds)


def test_names_of_a_part_of_a_page_are_its_own() -> None:
    title, use = '<title id="t"> id="t" url(#c)</title>', '<g clip-path="url(#c)"><use href="#c" /></g>'
    assert nested(title, "a") == '<title id="a-t"> id="t" url(#c)</title>'
    assert nested(use, "a") == '<g clip-path="url(#a-c)"><use href="#a-c" /></g>'
    assert nested('<svg aria-labelledby="t">', "a") == '<svg aria-labelledby="a-t">'
    assert nested('<h1>1</h1><h3 id="x">h2</h3>', "a") == '<h2>1</h2><h4 id="a-x">h2</h4>'


def test_two_sections_of_one_name_are_refused() -> None:
    twice = (Section("a", Report("A", "?")), Section("a", Report("B", "?")))
    with pytest.raises(UsageError, match="one name"):
        render(Collection("Both", "?", twice))


def test_hostile_text_stays_text_in_a_collection() -> None:
    hostile = '<script>alert("x")</script> id="y" {{ 7 * 7 }}'
    told = {"answer": hostile, "claim": hostile, "words": hostile, "setting": hostile}
    ground = {"answer": "yes", "says": hostile, "parts": [{"name": hostile, "effect": 1.0, "low": None, "margin": 0.5}]}
    section = Section("a", Report(hostile, hostile, told, seeds=(hostile,)), (ground,))
    page = render(
        Collection(hostile, hostile, (section,), ((hostile, hostile),), {hostile: hostile}, ((hostile, 1.0),))
    )
    assert "<script" not in page
    assert "{{ 7 * 7 }}" in page
    assert 'id="y"' not in page

"""The restarts study: its graph as the rule wants it, and a whole smoke run from data to report."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from closerlook.errors import StoreError, UsageError
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import ConnectRecipe, PredictRecipe, Snapshot, TrainRecipe
from closerlook.runs.store import Store, only_one
from closerlook.studies import STUDIES, Results
from closerlook.studies.restarts import numbers
from closerlook.studies.run import StudyOutcome, conclude, price, run_study, study_folder


def trainings(scale: str) -> dict[str, TrainRecipe]:
    roles = STUDIES["restarts"].plan(scale).roles
    return {role: recipe for role, recipe in roles.items() if isinstance(recipe, TrainRecipe)}


SCALES = ("smoke", "small", "standard", "paper", "author-code")


@pytest.mark.parametrize("scale", SCALES)
def test_arms_of_a_seed_share_everything_up_to_the_schedule(scale: str) -> None:
    plan = STUDIES["restarts"].plan(scale)
    seed = plan.seeds[0]
    runs = trainings(scale)
    r, k, s = (runs[f"{arm}/{seed}/train"] for arm in "RKS")
    assert (
        r.model_copy(update={"schedule": k.schedule, "epochs": k.epochs, "snapshots": k.snapshots, "forks": k.forks})
        == k
    )
    assert (s.seeds, s.data, s.model, s.optimizer) == (r.seeds, r.data, r.model, r.optimizer)
    other = runs[f"R/{plan.seeds[1]}/train"]
    assert other.seeds != r.seeds
    assert other.data.seed != r.data.seed


# Cooling costs K up to 7 % of the summed rate; at smoke, where it is one epoch of three and nothing is judged, 23 %.
@pytest.mark.parametrize("scale", SCALES)
def test_the_cooled_trunk_matches_the_summed_rate_within_a_tenth(scale: str, tmp_path: Path) -> None:
    found = numbers.summed_rates(Results(STUDIES["restarts"].plan(scale), Store(tmp_path)))
    assert found["K"] == pytest.approx((1.0, 1.0), abs=0.25 if scale == "smoke" else 0.1)


@pytest.mark.parametrize("scale", ["small", "standard", "paper", "author-code"])
def test_every_compared_snapshot_ends_at_the_same_rate(scale: str) -> None:
    runs = trainings(scale)
    by_run = {run_id(recipe): recipe for recipe in runs.values()}
    predicted = [role for role in STUDIES["restarts"].plan(scale).roles.values() if isinstance(role, PredictRecipe)]
    points = [ref for recipe in predicted for ref in recipe.points.values() if isinstance(ref, Snapshot)]
    last = [by_run[ref.run].schedule.factor(by_run[ref.run].clock)(ref.step - 1) for ref in points]
    assert len(last) >= 20
    # The last step is at the final factor, 2e-5; a cosine of n steps is above it by (pi / n)^2 / 4, n >= 1000.
    assert last == pytest.approx([2e-5] * len(last), abs=2.5e-6)


def restarting(scale: str) -> list[int]:
    """Epochs, counted from 0, at whose begin the rate of R is the largest."""
    recipe = trainings(scale)["R/100/train"]
    at, length = recipe.schedule.factor(recipe.clock), recipe.clock.steps_per_epoch
    return [epoch for epoch in range(recipe.epochs) if at(epoch * length) == 1.0]


@pytest.mark.parametrize(
    ("scale", "peaks", "floors", "epochs"),
    [
        ("small", [0, 5, 15, 35], (15, 35, 75), 75),
        ("standard", [0, 5, 15, 35], (15, 35, 75), 75),
        ("paper", [0, 10, 30, 70, 150], (30, 70, 150), 200),
        ("author-code", [0, 11, 32, 73, 154], (32, 73, 154), 200),
    ],
)
def test_floors_are_the_last_steps_before_the_peaks(
    scale: str, peaks: list[int], floors: tuple[int, ...], epochs: int
) -> None:
    plan = STUDIES["restarts"].plan(scale)
    assert restarting(scale) == peaks
    assert (plan.about["floors"], plan.about["epochs"]) == (floors, (epochs,))
    r, s, k, c = (trainings(scale).get(f"{arm}/100/train") for arm in "RSKC")
    assert r is not None
    assert s is not None
    assert k is not None
    assert r.epochs == epochs
    # What is compared ends at the last floor; the step decay of the paper is trained to the end of the figure.
    assert s.epochs == (epochs if epochs == 200 else k.epochs)
    assert k.epochs == floors[-1] - plan.about["cool"][0]
    assert c is None or c.epochs == floors[-1]
    assert {r.step(floor) for floor in floors} <= {r.step(time) for time in r.snapshots}


def test_the_presets_differ_as_paper_and_code_do() -> None:
    paper, code = trainings("paper"), trainings("author-code")
    for runs, factor in ((paper, [1, 0.2, 0.2, 0.04]), (code, [1, 0.1, 0.01, 0.001])):
        r, s = runs["R/100/train"], runs["S/100/train"]
        assert (r.model.name, r.batch_size, r.augment, r.data.name) == ("vgg16", 100, True, "cifar10")
        assert r.optimizer.model_dump() == {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
        at, length = s.schedule.factor(s.clock), s.clock.steps_per_epoch
        assert [at(epoch * length) for epoch in (59, 60, 149, 150)] == pytest.approx(factor)
        assert at(120 * length) == pytest.approx(0.2 if runs is paper else 0.01)
    steps = [{recipe.schedule.factor(recipe.clock)(step) for step in range(450)}
             for recipe in (paper["R/100/train"], code["R/100/train"])]  # fmt: skip
    assert (len(steps[0]), len(steps[1])) == (450, 1)
    curve = STUDIES["restarts"].plan("author-code").roles["R/100/curve/73-154"]
    assert isinstance(curve, ConnectRecipe)
    assert (curve.epochs, curve.optimizer.lr, curve.optimizer.momentum, curve.optimizer.weight_decay) == (
        101,
        0.1,
        0,
        0,
    )
    at = curve.schedule.factor(curve.clock)
    assert [at(450 * epoch) for epoch in (44, 45, 79, 80, 100)] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(("scale", "late"), [("small", 75), ("paper", 150), ("author-code", 154)])
def test_a_branch_begins_at_its_trunks_rate(scale: str, late: int) -> None:
    runs, about = trainings(scale), STUDIES["restarts"].plan(scale).about
    assert about["floors"][-1] == late
    for arm in "KS":
        trunk = runs[f"{arm}/100/train"]
        for floor in about["floors"][-2:]:
            branch = runs[f"{arm}/100/cool{floor}"]
            assert branch.start is not None
            assert branch.start.step == trunk.step(floor - about["cool"][0])
            before = trunk.schedule.factor(trunk.clock)(branch.start.step - 1)
            assert branch.schedule.factor(branch.clock)(0) == before


def test_verdict_seeds_are_not_tuning_seeds() -> None:
    for scale in SCALES[1:]:
        assert min(STUDIES["restarts"].plan(scale).seeds) >= 100
    assert max(STUDIES["restarts"].plan("smoke").seeds) < 100


def test_other_data_makes_another_study(tmp_path: Path) -> None:
    own, other = (STUDIES["restarts"].plan("smoke", data=name) for name in ("digits", "synthetic"))
    assert own.roles == STUDIES["restarts"].plan("smoke").roles
    assert study_folder(own, tmp_path) != study_folder(other, tmp_path)
    assert "--data synthetic" in other.command
    small = STUDIES["restarts"].plan("small", data="synthetic").roles["R/100/train"]
    assert isinstance(small, TrainRecipe)
    assert small.data.resolution is None


def test_unknown_scale_and_no_seed_are_refused() -> None:
    with pytest.raises(UsageError, match="no scale 'large'"):
        STUDIES["restarts"].plan("large")
    with pytest.raises(UsageError, match="at least one seed"):
        STUDIES["restarts"].plan("smoke", seeds=())


@pytest.mark.parametrize("scale", ["standard", "paper", "author-code"])
def test_large_scales_are_priced_without_their_data(scale: str, tmp_path: Path) -> None:
    rows = {row["kind"]: row for row in price(STUDIES["restarts"].plan(scale), tmp_path)}
    assert rows["train"]["flops"] > 1e14
    assert all(row["done"] == 0 for row in rows.values())


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyOutcome]:
    root = tmp_path_factory.mktemp("smoke")
    plan = STUDIES["restarts"].plan("smoke")
    return root, run_study(plan, root, jobs=1, progress=lambda event: None)


def test_the_table_is_what_the_stored_numbers_say(smoke: tuple[Path, StudyOutcome]) -> None:
    root, outcome = smoke
    plan = STUDIES["restarts"].plan("smoke")
    runs = json.loads((outcome.folder / "plan.json").read_text())["runs"]

    def height(role: str) -> float:
        losses = json.loads((root / runs[role] / "results/profile.json").read_text())["values"]["train_loss"]
        return max(losses) - max(losses[0], losses[-1])

    between = np.mean([height(f"I/{pair}/segment") for pair in ("0-1", "0-2", "1-2")])
    rows = list(csv.DictReader((outcome.folder / "table.csv").read_text().splitlines()))
    table = {(row["arm"], row["seed"], row["quantity"]): float(row["value"]) for row in rows}
    early, late = plan.about["floors"][-2:]
    for arm in "RKS":
        for seed in plan.seeds:
            wanted = height(f"{arm}/{seed}/segment/{early}-{late}") / between
            assert table[arm, str(seed), "separation"] == pytest.approx(wanted, rel=1e-12)
            logits = np.load(root / runs[f"{arm}/{seed}/predict"] / "results/logits.npz")
            hits = np.mean(logits[str(late)].argmax(1) == logits["targets"])
            assert table[arm, str(seed), "accuracy"] == pytest.approx(hits, rel=1e-12)
    assert table["I", "0-1", "seed_barrier"] == pytest.approx(height("I/0-1/segment"), rel=1e-12)


def test_the_report_holds_verdict_and_every_figure(smoke: tuple[Path, StudyOutcome]) -> None:
    _, outcome = smoke
    page = outcome.report.read_text()
    assert outcome.verdict.words in page.replace("&#39;", "'").replace("&#34;", '"')
    names = {path.stem for path in (outcome.folder / "figures").glob("*.svg")}
    assert names == {"training", "arms", "path-3-7", "matrix", "plane-0", "norms", "gains"}
    assert "recomputed" in page


def test_a_second_run_reuses_everything_and_writes_the_same(smoke: tuple[Path, StudyOutcome]) -> None:
    root, outcome = smoke
    before = {path.name: path.read_bytes() for path in outcome.folder.rglob("*.json")}
    events: list[str] = []
    again = run_study(
        STUDIES["restarts"].plan("smoke"), root, jobs=1, progress=lambda event: events.append(event.outcome)
    )
    assert set(events) == {"reused"}
    assert {path.name: path.read_bytes() for path in again.folder.rglob("*.json")} == before


def test_a_diverged_arm_is_a_result(smoke: tuple[Path, StudyOutcome], tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(smoke[0], root)
    plan = STUDIES["restarts"].plan("smoke")
    runs = json.loads((smoke[1].folder / "plan.json").read_text())["runs"]
    for role in ("K/0/segment/3-7", "K/0/predict"):
        folder = root / runs[role] / "results"
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "missing.json").write_text('{"reason": "diverged"}')
    rows = numbers.table(Results(plan, Store(root)))
    held = {(row["arm"], row["seed"], row["quantity"]): row["value"] for row in rows}
    assert held["K", "0", "accuracy"] == pytest.approx(0.1)
    assert np.isnan(held["K", "0", "separation"])
    outcome = conclude(plan, root)
    answers = {part.part.name: part.effect.answer for part in outcome.verdict.parts}
    assert answers["E1"] == "open"


def test_a_second_command_on_the_same_study_is_refused(tmp_path: Path) -> None:
    plan = STUDIES["restarts"].plan("smoke")
    with only_one(study_folder(plan, tmp_path) / "LOCK"), pytest.raises(StoreError, match="another command"):
        run_study(plan, tmp_path, jobs=1, progress=lambda event: None)

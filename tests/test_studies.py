"""The restarts study: its graph as the rule wants it, and a whole smoke run from data to report."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from closerlook.errors import StoreError, UsageError
from closerlook.runs.recipe import TrainRecipe
from closerlook.runs.store import Store, only_one
from closerlook.studies import STUDIES, Results
from closerlook.studies.restarts import numbers
from closerlook.studies.run import StudyOutcome, conclude, price, run_study, study_folder


def trainings(scale: str) -> dict[str, TrainRecipe]:
    roles = STUDIES["restarts"].plan(scale).roles
    return {role: recipe for role, recipe in roles.items() if isinstance(recipe, TrainRecipe)}


@pytest.mark.parametrize("scale", ["smoke", "small", "standard", "paper"])
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


@pytest.mark.parametrize("scale", ["small", "standard", "paper"])
def test_the_cooled_trunk_matches_the_summed_rate_within_a_tenth(scale: str, tmp_path: Path) -> None:
    found = numbers.summed_rates(Results(STUDIES["restarts"].plan(scale), Store(tmp_path)))
    assert found["K"] == pytest.approx((1.0, 1.0), abs=0.1)


def test_every_compared_snapshot_ends_at_the_same_rate() -> None:
    plan = STUDIES["restarts"].plan("small")
    ends = []
    for role, recipe in trainings("small").items():
        if role.split("/")[-1] == "longer" or (role.startswith(("K", "S")) and role.endswith("train")):
            continue
        ends.append(recipe.schedule.factor(recipe.clock)(recipe.clock.total_steps - 1))
    # The last step is at the final factor, 2e-5; a cosine is above it by (pi / 4000)^2 / 4 at most.
    assert ends == pytest.approx([2e-5] * len(ends), abs=2e-6)
    assert plan.about["floors"] == (15, 35, 75)


def test_a_branch_begins_at_its_trunks_rate() -> None:
    runs = trainings("small")
    for arm in "KS":
        trunk = runs[f"{arm}/100/train"]
        for floor in (35, 75):
            branch = runs[f"{arm}/100/cool{floor}"]
            before = trunk.schedule.factor(trunk.clock)(trunk.step(floor - 5) - 1)
            assert branch.schedule.factor(branch.clock)(0) == before


def test_verdict_seeds_are_not_tuning_seeds() -> None:
    for scale in ("small", "standard", "paper"):
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


@pytest.mark.parametrize("scale", ["standard", "paper"])
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

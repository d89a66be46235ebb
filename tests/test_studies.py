"""The restarts study: its graph as the rule wants it, and a whole smoke run from data to report."""

import csv
import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from closerlook.errors import StoreError, UsageError
from closerlook.launch import launch, pool
from closerlook.report import Figure, Table
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import CompareRecipe, ConnectRecipe, PredictRecipe, Snapshot, TrainRecipe
from closerlook.runs.store import Store, only_one
from closerlook.studies import STUDIES, Results
from closerlook.studies.restarts import layer_tables, numbers, representations
from closerlook.studies.restarts.compared import ACROSS, LATE, compared
from closerlook.studies.restarts.settings import SCALES as SETTINGS
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


@pytest.mark.parametrize("scale", SCALES)
def test_floors_are_compared_by_layer_within_arms_and_between_seeds(scale: str) -> None:
    plan = STUDIES["restarts"].plan(scale)
    roles = {role: recipe for role, recipe in plan.roles.items() if isinstance(recipe, CompareRecipe)}
    predicted = {role: recipe for role, recipe in plan.roles.items() if isinstance(recipe, PredictRecipe)}
    early, late = (str(floor) for floor in plan.about["floors"][-2:])

    def floor(arm: str, seed: int, epoch: str) -> Snapshot:
        ref = predicted[f"{arm}/{seed}/predict"].points[epoch]
        assert isinstance(ref, Snapshot)
        return ref

    wanted = {
        f"{arm}/{seed}/layers": (floor(arm, seed, early), floor(arm, seed, late))
        for arm in "RKS"
        for seed in plan.seeds
    }
    for a, b in combinations(plan.seeds, 2):
        wanted[f"I/{a}-{b}/layers"] = (floor("R", a, late), floor("R", b, late))
        wanted[f"I/{a}-{b}/layers-across"] = (floor("R", a, early), floor("R", b, late))
    checks = {role for role, recipe in roles.items() if recipe.conv == "spectral"}
    assert {role: (recipe.a, recipe.b) for role, recipe in roles.items() if role not in checks} == wanted
    assert len({recipe.measures for role, recipe in roles.items() if role not in checks}) == 1
    assert {(recipe.split, recipe.insist) for recipe in roles.values()} == {("test", False)}
    assert len(checks) == (3 * len(plan.seeds) if scale == "standard" else 0)
    begun = {recipe.seeds.init for recipe in trainings(scale).values()}
    assert not begun & {recipe.seed for recipe in roles.values()}  # untrained means other initial weights


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


def similarities(x: np.ndarray, y: np.ndarray, k: int) -> dict[str, float]:
    """Debiased CKA from Gram matrices (Song et al. 2012, equation 5), Procrustes and CCA from singular values."""
    n = len(x)

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        k_a, k_b = (gram - np.diag(np.diag(gram)) for gram in (a @ a.T, b @ b.T))
        ends = k_a.sum() * k_b.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k_a.sum(0) @ k_b.sum(0))
        return float(np.trace(k_a @ k_b) + ends)

    x, y = (rows - rows.mean(0) for rows in (x, y))
    bases = [np.linalg.svd(rows, full_matrices=False)[0][:, :k] for rows in (x, y)]
    shared = np.linalg.svd(x.T @ y, compute_uv=False).sum()
    return {
        "cka": hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)),
        "procrustes": float(shared / np.linalg.norm(x) / np.linalg.norm(y)),
        f"svcca:{k},r2": float(np.linalg.norm(bases[0].T @ bases[1]) ** 2 / k),
    }


def test_similarity_of_the_heads_is_that_of_the_stored_logits(smoke: tuple[Path, StudyOutcome]) -> None:
    plan = STUDIES["restarts"].plan("smoke")
    results = Results(plan, Store(smoke[0]))
    found = compared(results, "layers")
    assert found is not None
    assert found.layers == ["relu8", "head.fc1"]

    def logits(arm: str, seed: int, floor: int) -> np.ndarray:
        held = numbers.logits(results, arm, seed)
        assert held is not None
        return held[str(floor)].double().numpy()[:100]  # the test images that smoke compares on

    pairs = {(arm, seed): ((arm, seed, 3), (arm, seed, 7)) for arm in "RKS" for seed in plan.seeds}
    for number, (a, b) in enumerate(combinations(plan.seeds, 2)):
        pairs |= {(LATE, number): (("R", a, 7), ("R", b, 7)), (ACROSS, number): (("R", a, 3), ("R", b, 7))}
    for (name, number), (a, b) in pairs.items():
        for measure, value in similarities(logits(*a), logits(*b), 3).items():
            # Logits are stored in float32; principal directions turn by that over their gap.
            assert found.same(name, measure)[number, -1] == pytest.approx(value, abs=1e-4)


def test_tables_of_layers_hold_every_seed_and_the_contrast(smoke: tuple[Path, StudyOutcome]) -> None:
    results = Results(STUDIES["restarts"].plan("smoke"), Store(smoke[0]))
    found = compared(results, "layers")
    assert found is not None
    made = {table.id: table for table in layer_tables.tables(results)}
    assert set(made) == {"layers-cca", "layers-cka", "layers-procrustes"}
    table = made["layers-procrustes"]
    row = dict(zip(table.columns, table.rows[-1], strict=True))
    assert (row["layer"], row["units"], row["directions"]) == ("head.fc1", 10, "10")
    assert row["R"] == pytest.approx(found.same("R", "procrustes")[:, -1], abs=6e-4)
    raised = [(found.same(arm, "procrustes") - found.same(arm, "procrustes", "chance"))[:, -1]
              / (1 - found.same(arm, "procrustes", "chance")[:, -1]) for arm in "RK"]  # fmt: skip
    assert row["R \N{MINUS SIGN} K, above chance"] == pytest.approx(raised[0] - raised[1], abs=6e-4)
    assert "n = 100 test images" in table.caption
    assert "maps averaged over space" in table.caption


@pytest.fixture(scope="module")
def alone(smoke: tuple[Path, StudyOutcome]) -> tuple[Results, dict[str, Figure], dict[str, Table]]:
    """One seed of smoke, compared per frequency too: results, figures and tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "smoke", SETTINGS["smoke"].model_copy(update={"spectral": True}))
        plan = STUDIES["restarts"].plan("smoke", seeds=(0,))
    with pool(1) as executor:
        launch(plan.recipes, Store(smoke[0]), executor, 1, lambda event: None)
    results = Results(plan, Store(smoke[0]))
    drawn = {figure.id: figure for figure in representations.drawings(results)}
    return results, drawn, {table.id: table for table in layer_tables.tables(results)}


def test_one_seed_has_no_two_seeds(alone: tuple[Results, dict[str, Figure], dict[str, Table]]) -> None:
    _, drawn, tables = alone
    assert "two seeds (none)" in drawn["layers-cka"].svg
    assert "two seeds" not in drawn["layers-profile"].svg
    assert all(row[6:8] == (None, None) for table in tables.values() for row in table.rows)


def test_the_check_per_frequency_has_figures_and_a_table(
    alone: tuple[Results, dict[str, Figure], dict[str, Table]],
) -> None:
    results, drawn, tables = alone
    assert {"layers-spectral-profile", "layers-spectral-cca"} <= set(drawn)
    assert "maps compared at each spatial frequency" in drawn["layers-spectral-cca"].caption
    rows = tables["layers-spectral-cca"].rows
    # 100 images are too few for up to 32 channels at a frequency; logits are maps of one place.
    assert rows[0][3] == (None,)
    found = compared(results, "layers-spectral")
    assert found is not None
    assert rows[1][3] == pytest.approx(found.same("R", "cca:r2")[:, 1], abs=6e-4)


def test_the_report_holds_verdict_and_every_figure(smoke: tuple[Path, StudyOutcome]) -> None:
    _, outcome = smoke
    page = outcome.report.read_text()
    assert outcome.verdict.words in page.replace("&#39;", "'").replace("&#34;", '"')
    names = {path.stem for path in (outcome.folder / "figures").glob("*.svg")}
    assert names == {
        "training", "arms", "path-3-7", "matrix", "plane-0", "norms", "gains",
        "layers-profile", "layers-cca", "layers-cka", "layers-procrustes",
    }  # fmt: skip
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
    gone = ("K/0/segment/3-7", "K/0/predict", "K/0/layers", "S/0/layers", "S/1/layers", "S/2/layers")
    for role in gone:
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
    page, map_ = outcome.report.read_text(), (outcome.folder / "figures" / "layers-cka.svg").read_text()
    missing = "K, seed 0; S, seed 0; S, seed 1; S, seed 2"
    assert f"Missing, where a run diverged before or never got there: {missing}." in page
    assert "K (2 of 3)" in map_
    rows = next(table.rows for table in layer_tables.tables(Results(plan, Store(root))) if table.id == "layers-cka")
    assert all(row[4][0] is None and None not in row[3] and row[5] == (None,) * 3 for row in rows)


def test_a_second_command_on_the_same_study_is_refused(tmp_path: Path) -> None:
    plan = STUDIES["restarts"].plan("smoke")
    with only_one(study_folder(plan, tmp_path) / "LOCK"), pytest.raises(StoreError, match="another command"):
        run_study(plan, tmp_path, jobs=1, progress=lambda event: None)

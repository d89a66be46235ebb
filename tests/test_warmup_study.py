"""The warmup study: its graph as the rule wants it, the way to the verdict from planted numbers, and a smoke run."""

import json
import math
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from closerlook.curvature import stability_threshold
from closerlook.durations import to_steps
from closerlook.evaluation import batch_norms
from closerlook.evidence import verdict
from closerlook.models import build
from closerlook.runs.folder import VOLATILE
from closerlook.runs.recipe import AtLoss, BoundaryRecipe, CompareRecipe, TrainRecipe, Watch
from closerlook.runs.store import Store
from closerlook.schedules import StepDecay, Warmup
from closerlook.studies import STUDIES, Results
from closerlook.studies.run import StudyOutcome, conclude, run_study
from closerlook.studies.warmup import arms, changes, comparisons, numbers, sharpest
from closerlook.studies.warmup.settings import SCALES, Network
from closerlook.training.interventions import Freeze, GroupRate, RandomRate

PLANS = {scale: STUDIES["warmup"].plan(scale) for scale in SCALES}


def training(scale: str, arm: str, seed: int) -> TrainRecipe:
    recipe = PLANS[scale].roles[f"{arm}/{seed}/train"]
    assert isinstance(recipe, TrainRecipe)
    return recipe


# The graph ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_arms_of_a_seed_share_everything_but_the_one_change(scale: str) -> None:
    first, second = PLANS[scale].seeds[:2]
    found = arms.arms(SCALES[scale].at(first), first, mapped=True)
    plain = found["N"]
    changed = {
        arm: {name for name in TrainRecipe.model_fields if getattr(recipe, name) != getattr(plain, name)}
        for arm, recipe in found.items()
    }
    assert changed.pop("N") == set()
    assert changed.pop("W") == {"schedule"}
    assert changed.pop("SB") == {"batch_size", "optimizer"}
    assert set(map(frozenset, changed.values())) == {frozenset({"interventions"})}
    assert all(len(found[arm].interventions) == 1 for arm in changed)
    other = training(scale, "N", second)
    assert other.seeds != plain.seeds
    assert other.data.seed != plain.data.seed


@pytest.mark.parametrize("scale", SCALES)
def test_rates_meet_where_the_ramp_ends_and_the_deep_block_is_released_there(scale: str) -> None:
    settings, seed = SCALES[scale], PLANS[scale].seeds[0]
    n, w, fd = (training(scale, arm, seed) for arm in ("N", "W", "FD"))
    at_n, at_w, at_fd = (recipe.schedule.factor(recipe.clock) for recipe in (n, w, fd))
    ramp, total = settings.ramp_steps, n.clock.total_steps
    assert 0 < ramp < total
    assert at_w(0) == 0.0
    assert all(at_w(step) < at_n(step) for step in range(ramp))
    assert all(at_w(step) == at_n(step) for step in range(ramp, total))
    (freeze,) = fd.interventions
    assert isinstance(freeze, Freeze)
    assert to_steps(freeze.end, fd.clock) == ramp
    assert at_fd(ramp) == at_w(ramp)


@pytest.mark.parametrize("scale", SCALES)
def test_deep_and_shallow_warmup_share_out_the_parameters(scale: str) -> None:
    settings, seed = SCALES[scale], PLANS[scale].seeds[0]
    deep = settings.network.blocks[settings.network.deep]
    wd, ws, p, fd = (training(scale, arm, seed).interventions[0] for arm in ("WD", "WS", "P", "FD"))
    ramp = Warmup(settings.ramp)
    assert wd == GroupRate(ramp, deep)
    assert ws == GroupRate(ramp, "*", but=deep)
    assert p == RandomRate(ramp, like=deep, seed=seed)
    assert isinstance(fd, Freeze)
    assert fd.params == deep
    network = settings.network.model
    small = {"width": 0.0625} if network.name.startswith("vgg") else {}
    model = build(network.name, seed=0, **{**network.options, **small})
    assert bool(batch_norms(model)) == (scale not in ("paper", "author-code"))
    holds = [
        [block for block, patterns in settings.network.blocks.items() if any(fnmatchcase(name, p) for p in patterns)]
        for name, _ in model.named_parameters()
    ]
    assert {len(blocks) for blocks in holds} == {1}
    assert {block for blocks in holds for block in blocks} == set(settings.network.blocks)


OTHERS = SCALES["standard"].boundaries.others if SCALES["standard"].boundaries else {}
NETWORKS = {**{name: settings.network for name, settings in SCALES.items()}, **OTHERS}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_every_pattern_of_a_block_finds_parameters(network: Network) -> None:
    # An intervention refuses a pattern that finds none, in the middle of a study.
    with torch.device("meta"):
        names = [name for name, _ in build(network.model.name, **network.model.options).named_parameters()]
    patterns = [pattern for block in network.blocks.values() for pattern in block]
    assert all(any(fnmatchcase(name, pattern) for name in names) for pattern in patterns)


@pytest.mark.parametrize("scale", SCALES)
def test_the_step_of_equal_sums_is_the_first_with_at_least_that_sum(scale: str) -> None:
    settings, seed = SCALES[scale], PLANS[scale].seeds[0]
    n, w = training(scale, "N", seed), training(scale, "W", seed)
    at_n, at_w = n.schedule.factor(n.clock), w.schedule.factor(w.clock)
    step, goal = comparisons.same_sum(settings), math.fsum(at_n(step) for step in range(settings.early))
    assert math.fsum(at_w(before) for before in range(step)) >= goal - 1e-9
    assert math.fsum(at_w(before) for before in range(step - 1)) < goal
    assert {to_steps(time, w.clock) for time in w.snapshots} >= {settings.early, step, settings.ramp_steps}


@pytest.mark.parametrize("scale", SCALES)
def test_a_loss_to_compare_at_exists_and_everything_compared_is_kept(scale: str) -> None:
    settings, plan = SCALES[scale], PLANS[scale]
    assert settings.early % training(scale, "W", plan.seeds[0]).clock.steps_per_epoch == 0
    compared = {role: recipe for role, recipe in plan.roles.items() if isinstance(recipe, CompareRecipe)}
    kept = {"N": 4, "W": 4, "WD": 1, "WS": 1, "FD": 1}
    assert len(compared) == sum(kept.values()) * len(plan.seeds)
    for role, recipe in compared.items():
        arm, seed, basis = role.split("/")
        assert recipe.a == recipe.a.model_copy(update={"step": 0})
        run = training(scale, arm, int(seed))
        if isinstance(recipe.b, AtLoss):
            assert (arm, basis, recipe.b.like.step) == ("N", "layers-loss", settings.early)
        else:
            assert recipe.b.step in {to_steps(time, run.clock) for time in run.snapshots}


def test_cells_of_the_map_that_an_arm_has_are_the_arms_runs() -> None:
    plan, phase = PLANS["small"], SCALES["small"].phase
    seed = plan.seeds[0]
    for factor in phase.factors:
        for length in phase.lengths:
            cell = plan.roles[f"phase/{factor:g}/{length}/{seed}"]
            same = {"0": "N", "100it": "W"}.get(str(length)) if factor == 1.0 else None
            assert same is None or cell == training("small", same, seed)
            assert isinstance(cell, TrainRecipe)
            assert cell.optimizer.lr == pytest.approx(1.5 * factor)
            assert (cell.watch == Watch()) == (same is None)


@pytest.mark.parametrize("scale", ["smoke", "standard"])
def test_all_boundaries_of_a_seed_lie_on_one_grid_that_others_do_not_share(scale: str) -> None:
    plan = PLANS[scale]
    grids: dict[str, set[tuple[float, float, float, float]]] = {}
    for role, recipe in plan.roles.items():
        if isinstance(recipe, BoundaryRecipe):
            grids.setdefault(role.split("/")[-1], set()).add((recipe.low, recipe.high, recipe.factor, recipe.offset))
            assert 0 <= recipe.offset < 1
    assert set(grids) == set(map(str, plan.seeds))
    assert all(len(grid) == 1 for grid in grids.values())
    assert len({grid.pop() for grid in grids.values()}) == len(plan.seeds)


def test_the_presets_are_those_of_paper_and_code() -> None:
    for scale, steps in (("paper", 9), ("author-code", 10)):
        seed = PLANS[scale].seeds[0]
        n, w, sb = (training(scale, arm, seed) for arm in ("N", "W", "SB"))
        assert (n.model.name, n.data.name, n.augment, n.epochs) == ("vgg11", "cifar10", True, 200)
        assert n.optimizer.model_dump() == {"name": "sgd", "lr": 2.5, "momentum": 0.9, "weight_decay": 5e-4}
        assert (n.batch_size, n.clock.steps_per_epoch) == (5000, steps)
        assert (sb.batch_size, sb.optimizer.lr) == (100, 0.05)
        assert w.schedule == Warmup("200it", after=n.schedule)
        assert isinstance(n.schedule, StepDecay)
        at = n.schedule.factor(n.clock)
        ends = [epoch * steps for epoch in (59, 60, 119, 120, 149, 150)]
        assert [at(step) for step in ends] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert SCALES["author-code"].ramp_steps == 20 * 10
    assert (SCALES["author-code"].data.n_train, SCALES["author-code"].data.n_validation) == (50_000, 0)


def test_names_of_arms() -> None:
    assert arms.name_of("W") == "W: all warmed up"
    assert arms.name_of("WB:conv1-2") == "WB: conv1-2 warmed up"
    assert arms.name_of("FD:150it") == "FD: deep block frozen for 150it"


# From numbers to the verdict ------------------------------------------------------------------------------------------


def planted(monkeypatch: pytest.MonkeyPatch, accuracy: dict[str, list[float]], limits: dict[str, Any]) -> Results:
    """Results of `standard` whose accuracies and boundaries are these, one for each seed."""
    plan = PLANS["standard"]
    results = Results(plan, Store(Path("nowhere")))
    found = {arm: dict(zip(plan.seeds, values, strict=True)) for arm, values in accuracy.items()}
    monkeypatch.setattr(numbers, "accuracies", lambda results: found)
    monkeypatch.setattr(numbers.predictions, "chance", lambda results: 0.1)

    def boundary(results: Results, role: str) -> dict[str, Any] | None:
        _, arm, seed = role.split("/")
        value = limits[arm][plan.seeds.index(int(seed))]
        if value in ("below", "above"):
            return {"boundary": 1.0, "beyond": value}
        return None if value is None else {"boundary": value, "beyond": None}

    monkeypatch.setattr(numbers, "boundary", boundary)
    return results


NAN = math.nan
ACCURACY = {
    "N": [NAN] * 5, "W": [0.85, 0.86, 0.85, 0.87, 0.86], "WD": [0.82, 0.83, 0.8, 0.79, 0.81], "WS": [0.4, *[NAN] * 4],
    "P": [NAN] * 5, "FD": [NAN] * 5, "WB:conv1-2": [0.1] * 5, "FB:conv1-2": [NAN] * 5, "C": [0.5] * 5, "HL": [0.6] * 5,
    "SB": [0.8] * 5, "FD:150it": [NAN] * 5,
}  # fmt: skip
LIMITS: dict[str, Any] = {
    "N": [0.5, 0.6, 0.5, 0.7, 0.6], "W": [2.0, 2.4, 2.0, 2.8, 2.4], "WD": [1.8, 2.2, 1.9, 2.4, 2.2],
    "WS": [0.6, 0.65, 0.6, 0.75, 0.7], "P": [0.6, 0.65, 0.6, 0.75, 0.7],
}  # fmt: skip


@pytest.mark.parametrize("rule", ["warmup-small", "warmup"])
def test_planted_numbers_are_judged_and_every_row_is_used(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = planted(monkeypatch, ACCURACY, LIMITS)
    rows = [row for row in numbers.table(results) if rule == "warmup" or row["quantity"] == "accuracy"]
    found = verdict(rows, rule, "demonstration", chance=0.1)
    assert found.answer == "supported"
    answers = {part.part.name: part.effect.answer for part in found.parts}
    letter = "B" if rule == "warmup" else "H"
    assert [answers[f"{letter}({arm})"] for arm in ("WD", "WS", "P")] == ["yes", "no", "no"]
    assert answers["H(FD)"] == "no"
    assert not any("not used" in note for note in found.notes)


@pytest.mark.parametrize("beyond", ["below", "above", None])
def test_a_boundary_beyond_the_grid_leaves_no_share(beyond: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {**LIMITS, "WD": [beyond, *LIMITS["WD"][1:]]}
    rows = numbers.table(planted(monkeypatch, ACCURACY, limits))
    shares = [row["value"] for row in rows if (row["arm"], row["quantity"]) == ("WD", "boundary_share")]
    assert math.isnan(shares[0])
    assert np.isfinite(shares[1:]).all()


def test_a_run_that_diverged_counts_as_guessing(monkeypatch: pytest.MonkeyPatch) -> None:
    results = planted(monkeypatch, ACCURACY, LIMITS)
    assert numbers.counted(results)["N"] == dict.fromkeys(results.plan.seeds, 0.1)
    shares = numbers.benefits(results)
    assert list(shares["FD"].values()) == [0.0] * 5
    assert list(shares["W"].values()) == [1.0] * 5
    assert shares["WD"][results.plan.seeds[0]] == pytest.approx((0.82 - 0.1) / (0.85 - 0.1))
    even = planted(monkeypatch, {**ACCURACY, "N": [0.83] * 5}, LIMITS)  # 2 to 4 points are hardly a benefit
    assert all(math.isnan(share) for by_seed in numbers.benefits(even).values() for share in by_seed.values())


def test_boundaries_that_are_missing_or_too_close_leave_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {**LIMITS, "N": [None, 1.7, *LIMITS["N"][2:]], "WS": [0.6, 0.65, None, 0.75, 0.7]}
    results = planted(monkeypatch, ACCURACY, limits)
    held = {(row["arm"], row["seed"], row["quantity"]): row["value"] for row in numbers.table(results)}
    first, second, third, fourth, _ = map(str, results.plan.seeds)
    assert [math.isnan(held[arm, first, "boundary_share"]) for arm in ("WD", "WS", "P")] == [True] * 3
    assert [math.isnan(held[arm, second, "boundary_share"]) for arm in ("WD", "WS", "P")] == [True] * 3
    assert [math.isnan(held[arm, third, "boundary_share"]) for arm in ("WD", "WS", "P")] == [False, True, False]
    assert held["WD", fourth, "boundary_share"] == pytest.approx(math.log(2.4 / 0.7) / math.log(4))
    assert math.isnan(held["N", first, "boundary"])
    rows = numbers.table(results)
    assert {part.part.name: part.effect.answer for part in verdict(rows, "warmup", chance=0.1).parts}["B(WD)"] == "open"


def test_contrast_of_changes_by_hand() -> None:
    results = SimpleNamespace(plan=SimpleNamespace(scale="smoke"))
    nan = np.nan
    corrected = {
        "N": np.array([[0.9, 0.7, 0.2, 0.4], [nan] * 4, [0.9, nan, 0.2, 0.4]]),
        "W": np.array([[0.8, 0.8, 0.9, 0.7], [0.5] * 4, [0.8, 0.1, 0.9, 0.7]]),
    }

    class Found:
        any = SimpleNamespace(layers_a=("features.relu1", "features.relu8", "head.relu1", "head.fc3"))

        def same(self, arm: str, measure: str, show: str) -> np.ndarray[Any, Any]:
            assert show == "corrected"
            return corrected[arm]

    found = changes.contrasts(results, Found(), "cka")  # type: ignore[arg-type]
    # N: deep changed by 0.7, the others by 0.2; W: by 0.2 both.
    assert found[0] == pytest.approx((0.7 - 0.2) - (0.2 - 0.2))
    assert np.isnan(found[1])
    assert found[2] == pytest.approx((0.7 - 0.1) - (0.2 - 0.2))  # relu8 is known in one of them alone: left out


def test_the_first_unstable_step_by_hand() -> None:
    results = Results(PLANS["small"], Store(Path("nowhere")))
    limit = stability_threshold("sgd", 1.5, momentum=0.9, weight_decay=5e-4)
    shares = {"conv1-2": 0.3, "head": 0.7}
    rows = [
        {"step": 0, "sharpness": 0.9 * limit, "shares": shares}, {"step": 2, "sharpness": None, "shares": {}},
        {"step": 4, "sharpness": 1.2 * limit, "shares": {"conv1-2": 0.6, "head": 0.4}},
        {"step": 6, "sharpness": 9 * limit, "shares": shares},
    ]  # fmt: skip
    assert sharpest.first_unstable(results, rows) == (4, "conv1-2", 0.6)
    assert sharpest.first_unstable(results, rows[:2]) is None


# The whole ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyOutcome]:
    root = tmp_path_factory.mktemp("warmup")
    return root, run_study(STUDIES["warmup"].plan("smoke", seeds=(0,)), root, jobs=1, progress=lambda event: None)


def test_a_smoke_run_goes_from_data_to_report(smoke: tuple[Path, StudyOutcome]) -> None:
    root, outcome = smoke
    plan = STUDIES["warmup"].plan("smoke", seeds=(0,))
    results = Results(plan, Store(root))
    assert outcome.verdict.answer == "numbers only"
    assert not any("not used" in note for note in outcome.verdict.notes)
    names = {path.stem for path in (outcome.folder / "figures").glob("*.svg")}
    assert {"training", "causes", "phases", "sharpness", "updates", "layers-step", "layers-sum", "layers-ramp"} <= names
    page = outcome.report.read_text()
    for words in ("Test accuracy at the end", "Failure boundaries", "do deep layers change more", "convolutions"):
        assert words in page
    held = {(row["arm"], row["quantity"]): row["value"] for row in numbers.table(results)}
    logits = np.load(results.folder("WD/0/predict").path / "results/logits.npz")
    assert held["WD", "accuracy"] == np.mean(logits["end"].argmax(1) == logits["targets"])
    found = json.loads((results.folder("boundary/W/0").path / "results/boundary.json").read_text())
    limit = math.nan if found["beyond"] else found["boundary"]
    assert held["W", "boundary"] == pytest.approx(limit, rel=0, nan_ok=True)
    first = {arm: results.folder(f"{arm}/0/train").epochs()[0]["loss"] for arm in ("N", "W")}
    missing = (results.folder("N/0/layers-loss").path / "results" / "missing.json").exists()
    ends = [row["loss"] for row in results.folder("N/0/train").epochs()]
    assert missing == (min(ends) > first["W"])


def test_what_was_not_yet_there_when_a_study_stopped_is_made_with_the_same_bytes(
    smoke: tuple[Path, StudyOutcome], tmp_path: Path
) -> None:
    plan, root = STUDIES["warmup"].plan("smoke", seeds=(0,)), tmp_path / "runs"
    shutil.copytree(smoke[0], root)
    for role in ("P/0/train", "P/0/predict", "N/0/layers-loss", "boundary/W/0"):
        shutil.rmtree(Results(plan, Store(root)).folder(role).path)
    half = Results(plan, Store(root)).folder("WD/0/train").path
    (half / "DONE").unlink()  # stopped just before its end: its state is there
    events = list[str]()
    outcome = run_study(plan, root, jobs=1, progress=lambda event: events.append(event.outcome))
    assert events.count("done") == 5
    for path in smoke[0].rglob("*"):
        if path.is_file() and path.suffix != ".html" and path.name not in VOLATILE[:2]:
            assert (root / path.relative_to(smoke[0])).read_bytes() == path.read_bytes(), path.name
    assert outcome.verdict.to_dict() == smoke[1].verdict.to_dict()


def test_a_diverged_arm_is_a_result(smoke: tuple[Path, StudyOutcome], tmp_path: Path) -> None:
    plan, root = STUDIES["warmup"].plan("smoke", seeds=(0,)), tmp_path / "runs"
    shutil.copytree(smoke[0], root)
    for role in ("N/0/predict", "N/0/layers-step", "N/0/layers-sum", "N/0/layers-ramp", "boundary/N/0"):
        folder = Results(plan, Store(root)).folder(role).path / "results"
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "missing.json").write_text('{"reason": "diverged"}')
    outcome = conclude(plan, root)
    held = {(row["arm"], row["quantity"]): row["value"] for row in numbers.table(Results(plan, Store(root)))}
    assert math.isnan(held["N", "accuracy"])
    assert math.isnan(held["WD", "boundary_share"])
    assert numbers.counted(Results(plan, Store(root)))["N"] == {0: 0.1}
    assert "Missing, where a run diverged before or never got there: N, seed 0" in outcome.report.read_text()
    drawn = {figure.id for figure in changes.drawings(Results(plan, Store(root)))}
    assert "layers-step" in drawn
    assert "layers-step-cka" not in drawn  # there is no N to stand beside W

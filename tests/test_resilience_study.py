"""The resilience study: its graph as the rule wants it, its numbers against other ways to them, and a smoke run."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import closerlook as cl
from closerlook.errors import UsageError
from closerlook.evaluation import batch_norms
from closerlook.files import read_tensors
from closerlook.models import build
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import Aligned, AlignRecipe, Bend, ConnectRecipe, ProfileRecipe, Snapshot, TrainRecipe
from closerlook.runs.store import Store
from closerlook.steps.points import Resolver
from closerlook.steps.setting import fixed_batches, network, parts
from closerlook.studies import STUDIES, Results, StudyPlan
from closerlook.studies.resilience import numbers
from closerlook.studies.resilience.embedding import distances, embeddings, principal
from closerlook.studies.resilience.settings import MODES, SCALES
from closerlook.studies.run import StudyOutcome, run_study

PLANS: dict[str, StudyPlan] = {scale: STUDIES["resilience"].plan(scale) for scale in SCALES}
ONE_CHANGE = {
    "G'": set(), "A": {"batch_size"}, "B": {"optimizer"}, "C": {"schedule"}, "D": {"optimizer"}, "E": {"model"},
    "F": {"augment"},
}  # fmt: skip


def training(scale: str, mode: str, seed: int) -> TrainRecipe:
    recipe = PLANS[scale].roles[f"{mode}/{seed}/train"]
    assert isinstance(recipe, TrainRecipe)
    return recipe


# The graph ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_every_mode_is_another_run_with_one_change(scale: str) -> None:
    for seed in PLANS[scale].seeds:
        reference = training(scale, "G", seed)
        for mode, change in ONE_CHANGE.items():
            found = training(scale, mode, seed)
            fields = set(TrainRecipe.model_fields) - {"forks"}
            differ = {name for name in fields if getattr(found, name) != getattr(reference, name)}
            assert differ == change | {"seeds"}
            streams = reference.seeds.model_dump().items()
            assert all(getattr(found.seeds, stream) != value for stream, value in streams)
    inits = [recipe.seeds.init for role, recipe in PLANS[scale].roles.items() if isinstance(recipe, TrainRecipe)
             and "shared" not in role and "narrow" not in role and "longer" not in role]  # fmt: skip
    assert len(set(inits)) == len(inits)


@pytest.mark.parametrize("scale", SCALES)
def test_what_shares_initial_weights_differs_in_these_alone(scale: str) -> None:
    shared = [role for role in PLANS[scale].roles if role.endswith("/train") and " shared/" in role]
    assert {role.partition(" ")[0] for role in shared} == set(SCALES[scale].shared)
    for role in shared:
        mode, seed = role.split("/")[0], int(role.split("/")[1])
        own, other = training(scale, mode, seed), training(scale, mode.removesuffix(" shared"), seed)
        assert own.seeds.init == training(scale, "G", seed).seeds.init != other.seeds.init
        assert own.seeds.model_copy(update={"init": other.seeds.init}) == other.seeds
        assert own.model_copy(update={"seeds": other.seeds}) == other


@pytest.mark.parametrize("scale", SCALES)
def test_every_curve_begins_at_g_with_the_same_budget(scale: str) -> None:
    plan = PLANS[scale]
    for seed in plan.seeds:
        curves = {
            role.split("/")[0]: recipe for role, recipe in plan.roles.items()
            if isinstance(recipe, ConnectRecipe) and f"/{seed}/" in role and "narrow" not in role
        }  # fmt: skip
        assert set(MODES) <= set(curves)
        budget = {recipe.model_dump_json(exclude={"a", "b", "curve"}) for recipe in curves.values()}
        assert len(budget) == 1
        start = training(scale, "G", seed)
        assert {recipe.a for recipe in curves.values()} == {Snapshot(run=run_id(start), step=start.clock.total_steps)}
        for mode, curve in curves.items():
            segment, along = (plan.roles[f"{mode}/{seed}/{path}"] for path in ("segment", "along"))
            assert isinstance(segment, ProfileRecipe)
            assert isinstance(along, ProfileRecipe)
            assert segment.points == (curve.a, curve.b)
            assert along.points == (curve.a, Bend(run=run_id(curve)), curve.b)
            assert along.curve == curve.curve
            for epoch in plan.about["budgets"][:-1]:
                early = plan.roles[f"{mode}/{seed}/along-{epoch}"]
                assert isinstance(early, ProfileRecipe)
                assert early.points[1] == Bend(run=run_id(curve), step=epoch * curve.clock.steps_per_epoch)


@pytest.mark.parametrize("scale", SCALES)
def test_the_null_control_goes_on_with_the_last_rate_of_g(scale: str) -> None:
    for seed in PLANS[scale].seeds:
        reference, longer = training(scale, "G", seed), PLANS[scale].roles[f"G/{seed}/longer"]
        assert isinstance(longer, TrainRecipe)
        assert longer.start == Snapshot(run=run_id(reference), step=reference.clock.total_steps)
        last = reference.schedule.factor(reference.clock)(reference.clock.total_steps - 1)
        assert {longer.schedule.factor(longer.clock)(step) for step in range(longer.clock.total_steps)} == {last}
        assert longer.optimizer == reference.optimizer


# Recipes of `small` are those of the stored verdict: another hash means that it has to be run again.
def test_recipes_of_the_verdict_are_pinned() -> None:
    names = "".join(f"{role} {run_id(one)}\n" for role, one in PLANS["small"].roles.items())
    assert hashlib.sha256(names.encode()).hexdigest()[:12] == "789ced1cca97"
    assert min(min(PLANS[scale].seeds) for scale in SCALES if scale != "smoke") >= 100


def test_only_the_end_of_the_aligned_pair_is_permuted() -> None:
    plan = PLANS["small"]
    seed = plan.seeds[0]
    align, curve = plan.roles[f"aligned/{seed}/align"], plan.roles[f"aligned/{seed}/curve"]
    plain = plan.roles[f"G'/{seed}/curve"]
    assert isinstance(align, AlignRecipe)
    assert isinstance(curve, ConnectRecipe)
    assert isinstance(plain, ConnectRecipe)
    assert (align.a, align.b) == (plain.a, plain.b)
    assert curve == plain.model_copy(update={"b": Aligned(run=run_id(align))})


@pytest.mark.parametrize("scale", SCALES)
def test_the_aligned_segment_is_repaired_where_no_statistics_could_be_estimated(scale: str) -> None:
    plan, settings = PLANS[scale], SCALES[scale]
    found = plan.roles.get(f"aligned/{plan.seeds[0]}/repaired")
    with torch.device("meta"):
        norms = batch_norms(build(settings.model.name, seed=0, **settings.model.options))
    assert (found is None) == bool(norms)
    if found is not None:
        kept = plan.roles[f"aligned/{plan.seeds[0]}/kept"]
        assert found == kept.model_copy(update={"repair": True, "batch_stats": "recompute"})


# The initial weights of E ---------------------------------------------------------------------------------------------


def test_larger_initial_weights_are_the_same_ones_scaled() -> None:
    options: dict[str, Any] = {"width": 0.0625, "head": "linear", "init": "he", "image_size": 8, "in_channels": 1}
    plain, wide = (dict(build("vgg11_bn", seed=3, init_gain=gain, **options).named_parameters()) for gain in (1.0, 3.0))
    for name, weights in plain.items():
        scaled = 3.0 if weights.ndim > 1 else 1.0
        assert np.allclose(wide[name].detach(), scaled * weights.detach(), rtol=1e-6, atol=0)
    with pytest.raises(cl.CloserlookError, match="init_gain"):
        build("vgg11_bn", init_gain=3.0, **{**options, "init": "torch"})


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, StudyOutcome]:
    root = tmp_path_factory.mktemp("resilience")
    plan = STUDIES["resilience"].plan("smoke", seeds=(0,))
    outcome = run_study(plan, root, jobs=1, progress=lambda event: None)
    return Results(plan, Store(root)), outcome


def value(results: Results, arm: str, quantity: str) -> float:
    (found,) = [r["value"] for r in numbers.table(results) if (r["arm"], r["quantity"]) == (arm, quantity)]
    return float(found)


@pytest.mark.parametrize("mode", ["G'", "E"])
def test_judged_numbers_are_those_of_the_library(mode: str, smoke: tuple[Results, StudyOutcome]) -> None:
    results, _ = smoke
    curve = results.plan.roles[f"{mode}/0/curve"]
    assert isinstance(curve, ConnectRecipe)
    model, held = network(curve.model, curve.data, seed=0), parts(curve.data)
    space = cl.WeightSpace(model)
    ends = [
        space.point(results.store.folder(ref.run).path / "checkpoints" / f"step-{ref.step:06d}.safetensors")
        for ref in (curve.a, curve.b) if isinstance(ref, Snapshot)
    ]  # fmt: skip
    bend = read_tensors(results.folder(f"{mode}/0/curve").path / "results" / "curve.safetensors")[0]["point.1"]
    loaders = {"train": fixed_batches(held.read, 500)}
    paths = {"segment": cl.line(*ends), "curve": cl.polychain([ends[0], bend, ends[1]])}
    for name, path in paths.items():
        read = cl.profile(model, path, loaders, points=5, stats_loader=fixed_batches(held.statistics, 500))
        errors = read.metric("train", "error")
        wanted = errors.max() - max(errors[0], errors[-1])
        assert value(results, mode, f"{name}_barrier") == pytest.approx(wanted, abs=1e-12)
        assert value(results, mode, "train_error") == pytest.approx(errors[-1], abs=1e-12)
        assert value(results, "G", "train_error") == pytest.approx(errors[0], abs=1e-12)


def test_a_bend_before_the_end_is_the_one_of_that_epoch(smoke: tuple[Results, StudyOutcome]) -> None:
    """The curve trained for the shorter budget alone goes the same way until the rates differ."""
    results, _ = smoke
    curve = results.plan.roles["A/0/curve"]
    assert isinstance(curve, ConnectRecipe)
    folder = results.folder("A/0/curve").path
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    steps = curve.clock.steps_per_epoch
    assert {f"step-{step:06d}.safetensors" for step in (0, steps, 2 * steps)} <= names
    early = read_tensors(folder / "checkpoints" / f"step-{steps:06d}.safetensors")[0]["point.1"]
    late = read_tensors(folder / "results" / "curve.safetensors")[0]["point.1"]
    assert not np.array_equal(early, late)
    found = numbers.budgets(results, "A", 0)
    assert sorted(found) == [0, 1, 2]
    assert found[1].barrier("train", "error").value != found[2].barrier("train", "error").value or not np.array_equal(
        found[1].metric("train", "loss"), found[2].metric("train", "loss")
    )


def test_a_bend_that_the_curve_does_not_keep_is_refused(smoke: tuple[Results, StudyOutcome]) -> None:
    results, _ = smoke
    curve = results.plan.roles["A/0/curve"]
    assert isinstance(curve, ConnectRecipe)
    find = Resolver(network(curve.model, curve.data, seed=0), results.folder("A/0/along"))
    with pytest.raises(UsageError, match="keeps no bends at step 3; put that time into its snapshots"):
        find.point(Bend(run=run_id(curve), step=3))


def test_the_permuted_mode_computes_what_the_mode_does(smoke: tuple[Results, StudyOutcome]) -> None:
    results, _ = smoke
    raw, kept = (numbers.profile_of(results, f"aligned/0/{name}") for name in ("raw", "kept"))
    assert raw is not None
    assert kept is not None
    for place in (0, -1):
        assert kept.metric("train", "loss")[place] == pytest.approx(raw.metric("train", "loss")[place], rel=1e-5)
    aligned, plain = (numbers.lengths(results, mode, 0) for mode in ("aligned", "G'"))
    assert aligned is not None
    assert plain is not None
    assert aligned[1] < plain[1]


def test_points_of_a_plane_keep_their_distances() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(6, 2)) @ np.linalg.qr(rng.normal(size=(40, 2)))[0].T + 5.0
    mixtures = rng.dirichlet(np.ones(6), size=9)
    about = points - points[2]
    scores, shares = principal(about @ about.T, mixtures)
    true = np.linalg.norm((mixtures @ points)[:, None] - mixtures @ points, axis=2)
    shown = np.linalg.norm(scores[:, None] - scores, axis=2)
    assert shown == pytest.approx(true, abs=1e-12)
    assert distances(about @ about.T, mixtures) == pytest.approx(true, abs=1e-6)
    assert sum(shares) == pytest.approx(1.0, abs=1e-12)


def test_the_embedding_shows_every_mode_and_bend(smoke: tuple[Results, StudyOutcome]) -> None:
    results, _ = smoke
    found = embeddings(results, 0)
    assert found is not None
    for each in found:
        assert list(each.modes) == ["G", *MODES]
        assert list(each.bends) == list(each.curves) == list(MODES)
        assert all(np.isfinite(curve).all() and curve.shape == (11, 2) for curve in each.curves.values())
        assert np.array_equal(each.curves["A"][0], each.modes["G"][0])
        assert np.array_equal(each.curves["A"][-1], each.modes["A"][0])


def test_a_smoke_run_goes_from_data_to_report(smoke: tuple[Results, StudyOutcome]) -> None:
    _, outcome = smoke
    assert outcome.verdict.answer == "numbers only"
    assert not any("not used" in note for note in outcome.verdict.notes)
    names = {path.stem for path in (outcome.folder / "figures").glob("*.svg")}
    assert names >= {"paths", "heights", "budgets", "open", "embedding", "aligned"}
    page = outcome.report.read_text()
    for words in ("Barriers from G to every mode", "until the curve is closed", "initial weights of G", "Bezier curve"):
        assert words in page


def test_the_first_reading_below_the_margin_closes_a_curve(
    smoke: tuple[Results, StudyOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, _ = smoke
    made = numbers.budgets(results, "A", 0)

    class Planted:
        def __init__(self, height: float) -> None:
            self.value = height

        def barrier(self, split: str, metric: str) -> "Planted":
            assert (split, metric) == ("train", "error")
            return self

    cases = [((0.3, 0.02, 0.01), 2), ((0.3, 0.019, 0.05), 1), ((0.0, 0.0, 0.0), 0), ((0.3, 0.2, 0.02), None)]
    for heights, closed in cases:
        planted = dict(zip(made, map(Planted, heights), strict=True))
        monkeypatch.setattr(numbers, "budgets", lambda *_, of=planted: of)
        assert numbers.closes_at(results, "A", 0) == closed


def test_a_mode_that_diverges_is_missing_and_the_rest_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SCALES["smoke"]
    wild = settings.adam.model_copy(update={"lr": 1e30})
    monkeypatch.setitem(SCALES, "smoke", settings.model_copy(update={"adam": wild, "shared": (), "bezier_on": None}))
    plan = STUDIES["resilience"].plan("smoke", seeds=(0,))
    outcome = run_study(plan, tmp_path, jobs=1, progress=lambda event: None)
    results = Results(plan, Store(tmp_path))
    assert math.isnan(value(results, "B", "curve_barrier"))
    assert math.isnan(value(results, "B", "train_error"))
    assert not math.isnan(value(results, "A", "curve_barrier"))
    assert "B/0/train" in outcome.report.read_text()

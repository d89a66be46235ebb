"""The distillation study: its graph, its numbers on planted and on tiny real runs, and a smoke run to the report."""

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t
from torch import nn

from closerlook import files
from closerlook.cli.summary import _KINDS, summary
from closerlook.data.soft_labels import as_soft_as, share_of_entropy, smoothed_labels
from closerlook.evidence import verdict
from closerlook.models import build
from closerlook.probes import probes
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import CompareRecipe, PredictRecipe, ProbesRecipe, Recipe, Snapshot, TrainRecipe
from closerlook.runs.store import Store
from closerlook.similarity import Comparison, Moments, cka
from closerlook.steps import run_step
from closerlook.steps.setting import fixed_batches, network, parts
from closerlook.studies import STUDIES, Results, StudyPlan, stored
from closerlook.studies.distillation import analysis, numbers, recipe
from closerlook.studies.distillation.drawings import drawings
from closerlook.studies.distillation.settings import SCALES as SETTINGS
from closerlook.studies.run import StudyOutcome, conclude, judge, price, run_study, study_folder
from closerlook.weights import loaded, named

SCALES = ("smoke", "small", "standard", "paper", "author-code")
Array = np.ndarray


def plan(scale: str, seeds: tuple[int, ...] | None = None) -> StudyPlan:
    return STUDIES["distillation"].plan(scale, seeds=seeds)


def trainings(scale: str) -> dict[str, TrainRecipe]:
    """The trainings of the first seed, by arm."""
    made = plan(scale)
    seed = made.seeds[0]
    return {
        role.removesuffix(f"/{seed}/train"): one for role, one in made.roles.items()
        if isinstance(one, TrainRecipe) and role.endswith(f"/{seed}/train")
    }  # fmt: skip


# The graph ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_students_share_everything_but_what_their_arm_says(scale: str) -> None:
    runs, settings = trainings(scale), SETTINGS[scale]
    hard = runs["H"]
    for arm, run in runs.items():
        if arm != "T":
            changed = {name for name in TrainRecipe.model_fields if getattr(run, name) != getattr(hard, name)}
            moved = {"weights", "fresh", "interventions"} if arm.startswith(("TL", "TE", "DH", "HD")) else set()
            assert changed == (set() if arm in ("H", "DH", "HD") else {"teacher"}) | moved, arm
    teacher = runs["D"].teacher
    assert teacher is not None
    end = Snapshot(run=run_id(runs["T"]), step=runs["T"].clock.total_steps)
    assert (teacher.model, teacher.point, teacher.soft) == (
        settings.teacher, end, "live" if settings.augment else "cached",
    )  # fmt: skip
    assert runs["SP"].teacher == teacher.model_copy(update={"soft": "permuted", "seed": plan(scale).seeds[0]})
    assert {runs[arm].teacher == teacher for arm in runs if arm.startswith(("TL", "TE"))} == {True}


@pytest.mark.parametrize("scale", SCALES)
def test_seeds_differ_in_teacher_subset_and_streams(scale: str) -> None:
    made = plan(scale)
    hard = [made.roles[f"H/{seed}/train"] for seed in made.seeds]
    assert len({one.seeds for one in hard if isinstance(one, TrainRecipe)}) == len(made.seeds)
    assert len({one.data.seed for one in hard}) == len(made.seeds)
    assert len({run_id(made.roles[f"T/{seed}/train"]) for seed in made.seeds}) == len(made.seeds)


@pytest.mark.parametrize("scale", ["smoke", "standard"])
def test_controls_change_only_what_is_taught(scale: str) -> None:
    runs = trainings(scale)
    teacher, hard = runs["D"].teacher, runs["H"]
    assert teacher is not None
    start, own = Snapshot(run=run_id(runs["T"]), step=0), Snapshot(run=run_id(hard), step=hard.clock.total_steps)
    assert runs["LS"].teacher == teacher.model_copy(update={"soft": "smoothed"})
    assert runs["U"].teacher == teacher.model_copy(update={"point": start})
    assert runs["SD"].teacher == teacher.model_copy(update={"point": own, "model": hard.model})
    distilled = Snapshot(run=run_id(runs["D"]), step=hard.clock.total_steps)
    for labelled, taught in (("DH", "TL"), ("HD", "TE")):
        # What TL and TE freeze of H these freeze of D, and no teacher comes near the rest.
        assert runs[labelled] == runs[taught].model_copy(update={"teacher": None, "weights": distilled})
    softer = {arm for arm in runs if arm.startswith("D:")}
    assert {f"D:T={one.temperature:g} mixing={one.mixing:g}" for arm in softer if (one := runs[arm].teacher)} == softer
    for arm in softer:
        assert runs[arm].teacher != teacher


def matching(patterns: tuple[str, ...], names: list[str]) -> set[str]:
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


@pytest.mark.parametrize("scale", ["smoke", "standard", "paper"])
def test_transplants_part_all_parameters_in_frozen_and_fresh(scale: str) -> None:
    runs, settings = trainings(scale), SETTINGS[scale]
    spec = settings.student
    size = {"classes": 10, "in_channels": 3, "image_size": 32}
    state = named(build(spec.name, seed=0, **{**size, **spec.options})).state()
    end = Snapshot(run=run_id(runs["H"]), step=runs["H"].clock.total_steps)
    places = {arm: int(arm[3:] or settings.parts.half) for arm in runs if arm.startswith(("TL", "TE"))}
    assert set(places.values()) == {settings.parts.half, *settings.splits}
    for arm, split in places.items():
        run = runs[arm]
        (frozen,) = run.interventions
        kept, fresh = matching(tuple(frozen.params), list(state)), matching(run.fresh, list(state))
        assert kept | fresh == set(state), arm
        assert not kept & fresh, arm
        assert matching(settings.parts.last, list(state)) <= fresh
        before = matching(settings.parts.before(split), list(state))
        assert before == (kept if arm.startswith("TL") else fresh - matching(settings.parts.last, list(state)))
        assert run.weights == end
        assert (frozen.end, frozen.norm) == ("1dur", "eval")


@pytest.mark.parametrize("scale", ["small", "standard", "paper"])
def test_every_part_has_one_compared_layer_with_one_of_the_teachers(scale: str) -> None:
    settings = SETTINGS[scale]
    size = {"classes": 10, "in_channels": 3, "image_size": 32}
    found = []
    for spec, patterns in (
        (settings.student, settings.layers), (settings.teacher, settings.teacher_layers or settings.layers),
    ):  # fmt: skip
        model = build(spec.name, seed=0, **{**size, **spec.options})
        found.append(sorted(matching(patterns, [name for name, _ in model.named_modules()])))
    assert len(found[0]) == len(found[1]) == len(settings.parts.layers)


def test_standard_cuts_at_every_place() -> None:
    runs = trainings("standard")
    found = {int(arm[3:] or 5) for arm in runs if arm.startswith("TL")}
    assert found == set(range(1, 10))


@pytest.mark.parametrize("scale", SCALES)
def test_students_are_compared_with_every_teacher_at_equal_depth(scale: str) -> None:
    made, settings = plan(scale), SETTINGS[scale]
    compared = {role: one for role, one in made.roles.items() if isinstance(one, CompareRecipe)}
    wanted = {f"{arm}/{a}/layers-{b}" for arm in ("H", "D", "SP") for a in made.seeds for b in made.seeds}
    assert set(compared) == wanted | (
        {f"{arm}/{a}/layers-{a}" for arm in ("LS", "U") for a in made.seeds} if settings.controls else set()
    )
    for role, one in compared.items():
        arm, seed, layers = role.split("/")
        student, teacher = made.roles[f"{arm}/{seed}/train"], made.roles[f"T/{layers.removeprefix('layers-')}/train"]
        assert isinstance(student, TrainRecipe)
        assert isinstance(teacher, TrainRecipe)
        assert one.a == Snapshot(run=run_id(student), step=student.clock.total_steps)
        assert one.b == Snapshot(run=run_id(teacher), step=teacher.clock.total_steps)
        assert (one.split, one.model_b, one.layers_b) == ("test", settings.teacher, settings.teacher_layers)
    assert len({one.measures for one in compared.values()}) == 1


# Recipes of `small` are those of the stored verdict: another hash means that it has to be run again.
def test_recipes_of_the_verdict_are_pinned() -> None:
    names = "".join(f"{role} {run_id(one)}\n" for role, one in plan("small").roles.items())
    assert hashlib.sha256(names.encode()).hexdigest()[:12] == "b40338e7c2bb"
    assert min(min(plan(scale).seeds) for scale in SCALES[1:]) >= 100


@pytest.mark.parametrize("scale", ["standard", "paper"])
def test_large_scales_are_priced_without_their_data(scale: str, tmp_path: Path) -> None:
    rows = {row["kind"]: row for row in price(plan(scale), tmp_path)}
    assert rows["train"]["flops"] > 1e14
    assert rows.get("probes", {}).get("runs", 0) == (30 if scale == "standard" else 0)


# Smoothed labels as soft as a teacher ---------------------------------------------------------------------------------


def entropy(p: torch.Tensor) -> torch.Tensor:
    return -torch.special.xlogy(p, p).sum(1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_smoothed_labels_are_as_soft_as_the_teacher(temperature: float) -> None:
    logits = 3 * torch.randn(400, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.arange(400) % 10
    found = (as_soft_as(logits, targets, temperature) / temperature).softmax(1)
    wanted = entropy((logits / temperature).softmax(1)).mean()
    assert entropy(found).numpy() == pytest.approx(np.full(400, float(wanted)), rel=1e-10)
    assert bool((found.argmax(1) == targets).all())
    share = share_of_entropy(float(wanted), 10)
    torch.testing.assert_close(found, smoothed_labels(targets, 10, share), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("share", "classes"), [(1e-6, 2), (0.1, 10), (0.5, 3), (1 - 1e-3, 100)])
def test_the_share_of_an_entropy_is_found_again(share: float, classes: int) -> None:
    of = float(entropy(smoothed_labels(torch.tensor([0]), classes, share)))
    assert share_of_entropy(of, classes) == pytest.approx(share, rel=1e-6)


def test_entropies_that_no_share_has_get_the_nearest() -> None:
    assert share_of_entropy(0.0, 10) == pytest.approx(0.0, abs=1e-8)
    assert share_of_entropy(math.log(10) + 1e-12, 10) == 1.0
    sure = as_soft_as(torch.tensor([[100.0, 0.0], [0.0, 100.0]]), torch.tensor([0, 1]), 1.0)
    assert bool(sure.isfinite().all())


# Numbers, on planted comparisons --------------------------------------------------------------------------------------

NAMES = ("features.relu2", "features.relu8", "head.relu2")
MEASURES = ("svcca:2,r2", "cka", "procrustes")


def planted(values: Array) -> Comparison:
    """A comparison with these similarities above chance on its diagonal, in each of the measures."""
    count = len(values)
    table = np.full((count, count), 0.25)
    np.fill_diagonal(table, values)
    side = [
        {"layer": f"{NAMES[place]}", "width": 8, "rank": 8, "condition": 1.0, "dropped": 0} for place in range(count)
    ]
    tables = {
        kind: dict.fromkeys(MEASURES, np.where(np.isnan(of), None, of).tolist())  # type: ignore[arg-type]
        for kind, of in (("value", table), ("corrected", table), ("chance", np.zeros_like(table)))
    }
    told = {
        "side_a": side, "side_b": side, "tables": tables, "measures": list(MEASURES), "n": 100, "handling": {
            "conv": "mean", "tokens": "mean",
        }, "dtype": "float64", "notes": [], "label": "planted",
    }  # fmt: skip
    return Comparison.from_dict(told)


def plant(made: StudyPlan, root: Path, similar: Callable[[str, int, int], Array | None]) -> Results:
    """A store in which `similar(arm, seed, teacher)` tells the similarities; None: the run before it diverged."""
    results = Results(made, Store(root))
    for role, one in made.roles.items():
        values = None
        if isinstance(one, CompareRecipe):
            arm, seed, layers = role.split("/")
            values = similar(arm, int(seed), int(layers.removeprefix("layers-")))
        if values is None:
            lose(results, role)
        else:
            files.write_json(results.folder(role).path / "results" / "compare.json", planted(values).to_dict())
    return results


def lose(results: Results, role: str) -> None:
    """Leave what a run leaves that takes from a diverged one."""
    folder = results.folder(role).path / "results"
    shutil.rmtree(folder, ignore_errors=True)
    files.write_json(folder / "missing.json", {"reason": "diverged"})


def judged(results: Results, seed: int) -> dict[tuple[str, str], float]:
    """The table of a seed by arm and quantity."""
    rows = (row for row in numbers.table(results) if row["seed"] == str(seed))
    return {(row["arm"], row["quantity"]): row["value"] for row in rows}


HARD, TAUGHT, PERMUTED = np.array([0.9, 0.6, 0.2]), np.array([0.91, 0.7, 0.6]), np.array([0.9, 0.7, 0.4])


def example(arm: str, seed: int, teacher: int) -> Array:
    if seed != teacher:  # other teachers
        return np.array([0.85, 0.5, 0.1])
    return {"H": HARD, "D": TAUGHT, "SP": PERMUTED}.get(arm, HARD)


def test_gain_specific_and_contrast_by_hand(tmp_path: Path) -> None:
    results = plant(plan("smoke"), tmp_path, example)
    assert numbers.gain(results, "D", 0, "cka") == pytest.approx([0.1, 0.25, 0.5])
    assert numbers.specific(results, "D", 0, "cka") == pytest.approx([0.06, 0.2, 0.5])
    rows = judged(results, 0)
    for name in ("cca", "cka", "procrustes"):
        assert rows["D", f"depth_contrast:{name}"] == pytest.approx((0.25 + 0.5) / 2 - 0.1)
        assert rows["SP", f"depth_contrast:{name}"] == pytest.approx((0.25 + 0.25) / 2 - 0.0)
        assert rows["LS", f"depth_contrast:{name}"] == pytest.approx(0.0)
        t = np.array([0.06, 0.2, 0.5]) - np.array([0.05, 0.1, 0.1])
        found = rows["D", f"specific_contrast:{name}"] - rows["H", f"specific_contrast:{name}"]
        assert found == pytest.approx(t[1:].mean() - t[0])


def test_recovered_is_a_share_of_what_distillation_removes() -> None:
    apart = {"H": 0.4, "D": 0.2, "TL": 0.3, "TE": 0.15}
    assert [numbers.recovered(apart, arm) for arm in ("TL", "TE")] == pytest.approx([0.5, 1.25])
    assert math.isnan(numbers.recovered(apart | {"D": 0.5}, "TL"))
    assert math.isnan(numbers.recovered(apart | {"H": math.nan}, "TL"))


def test_layers_that_one_arm_lacks_are_left_out_of_all() -> None:
    found = numbers.contrasts({
        "D": np.array([0.1, 0.3, math.nan, 0.5]), "SP": np.array([0.2, math.nan, 0.4, 0.8]),
        "gone": np.full(4, math.nan),
    })  # fmt: skip
    assert (found["D"], found["SP"]) == pytest.approx((0.4, 0.6))
    assert math.isnan(found["gone"])


def test_a_blank_layer_leaves_the_others(tmp_path: Path) -> None:
    def blank(arm: str, seed: int, teacher: int) -> Array:
        return np.where([True, False, True], example(arm, seed, teacher), math.nan)

    results = plant(plan("smoke"), tmp_path, blank)
    rows = judged(results, 0)
    assert rows["D", "depth_contrast:cka"] == pytest.approx(0.5 - 0.1)
    assert {figure.id for figure in drawings(results)} >= {"gain", "specific", "maps-cca"}


def test_a_teacher_that_diverged_is_not_among_the_others(tmp_path: Path) -> None:
    def lost(arm: str, seed: int, teacher: int) -> Array | None:
        return None if teacher == 2 else example(arm, seed, teacher)

    results = plant(plan("smoke", (0, 1, 2)), tmp_path, lost)
    assert numbers.specific(results, "D", 0, "cka") == pytest.approx([0.06, 0.2, 0.5])
    rows = judged(results, 2)
    assert rows.keys() == judged(results, 0).keys()
    assert all(math.isnan(value) for value in rows.values())


def untrained(tmp_path: Path, shared: float) -> Array:
    """What C2 reads, by seed, where teachers are untrained; D has `shared` of its own teacher's last layer.

    All networks are of two random layers on the same inputs, so they are alike without having met, the first layers
    more than the last.
    """
    seeds, generator = 6, torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 20, generator=generator, dtype=torch.float64)

    def layers(like: torch.Tensor | None = None) -> torch.Tensor:
        first, last = (torch.randn(20, 20, generator=generator, dtype=torch.float64) for _ in range(2))
        hidden = torch.relu(inputs @ first)
        outputs = torch.relu(hidden @ last)
        mixed = outputs if like is None else (1 - shared) * outputs + shared * like[1]
        return torch.stack([hidden, mixed])

    teachers = [layers() for _ in range(seeds)]
    students = {"H": [layers() for _ in range(seeds)], "D": [layers(teacher) for teacher in teachers]}
    students["SP"] = students["LS"] = students["U"] = students["H"]

    def alike(x: torch.Tensor, y: torch.Tensor) -> float:
        moments = Moments()
        moments.update(x, y)
        return cka(moments).value

    def similar(arm: str, seed: int, teacher: int) -> Array:
        pairs = zip(students[arm][seed], teachers[teacher], strict=True)
        return np.array([alike(x, y) for x, y in pairs])

    results = plant(plan("smoke", tuple(range(seeds))), tmp_path, similar)
    rows = [row for row in numbers.table(results) if row["quantity"] == "specific_contrast:cka"]
    d, h = (np.array([row["value"] for row in rows if row["arm"] == arm]) for arm in "DH")
    assert len(d) == seeds
    return d - h


# Teachers that nobody has seen are exchangeable, so t has the mean 0; the bound is met by 999 of 1000 such draws.
def test_an_untrained_teacher_leaves_nothing_specific(tmp_path: Path) -> None:
    found = untrained(tmp_path, shared=0.0)
    error = found.std(ddof=1) / math.sqrt(len(found))
    assert error < 0.05
    assert abs(found.mean()) < student_t.ppf(0.9995, len(found) - 1) * error


def test_a_last_layer_that_is_partly_the_teachers_is_specific(tmp_path: Path) -> None:
    found = untrained(tmp_path, shared=0.5)
    error = found.std(ddof=1) / math.sqrt(len(found))
    assert found.mean() - student_t.ppf(0.9995, len(found) - 1) * error > 0.02


# One run from data to report ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, StudyOutcome]:
    root = tmp_path_factory.mktemp("smoke")
    made = plan("smoke")
    outcome = run_study(made, root, jobs=1, progress=lambda event: None)
    return Results(made, Store(root)), outcome


def probabilities(results: Results, role: str) -> tuple[Array, Array]:
    held = np.load(results.folder(role).path / "results" / "logits.npz")
    odds = np.exp(held["end"].astype(float) - held["end"].max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True), held["targets"]


def test_the_table_is_what_the_stored_runs_say(smoke: tuple[Results, StudyOutcome]) -> None:
    results, outcome = smoke
    for seed in (0, 1):
        rows = judged(results, seed)
        apart = {}
        teacher, targets = probabilities(results, f"T/{seed}/predict")
        for arm in stored.arms_of(results):
            said, _ = probabilities(results, f"{arm}/{seed}/predict")
            apart[arm] = float((teacher * np.log(teacher / said)).sum(1).mean())
            if arm in ("T", "H", "D", "SP", "TL", "TE", "LS", "U") or arm.startswith("D:"):
                assert rows.pop((arm, "accuracy")) == pytest.approx((said.argmax(1) == targets).mean(), abs=1e-12)
            if arm in ("H", "D", "SP", "TL", "TE", "LS", "U"):
                assert rows.pop((arm, "divergence")) == pytest.approx(apart[arm], rel=1e-4)
            if arm.startswith(("TL", "TE")):
                whole = apart["H"] - apart["D"]
                wanted = (apart["H"] - apart[arm]) / whole if whole > 0 else math.nan
                assert rows.pop((arm, "recovered_divergence")) == pytest.approx(wanted, rel=1e-2, nan_ok=True)
        assert {quantity.partition(":")[0] for _, quantity in rows} == {"depth_contrast", "specific_contrast"}
        told = {
            arm: results.folder(f"{arm}/{seed}/layers-{seed}").result("compare")["tables"]["corrected"]["cka"]
            for arm in ("H", "D")
        }
        hard, taught = (np.diagonal(np.array(told[arm], dtype=float)) for arm in ("H", "D"))
        g = (taught - hard) / (1 - hard)
        assert rows["D", "depth_contrast:cka"] == pytest.approx(g[1:].mean() - g[:1].mean(), rel=1e-9)
    assert len(list(csv.DictReader((outcome.folder / "table.csv").read_text().splitlines()))) == len(
        numbers.table(results)
    )


def test_the_table_alone_gives_the_verdict(smoke: tuple[Results, StudyOutcome]) -> None:
    results, outcome = smoke
    made = results.plan
    again = verdict(str(outcome.folder / "table.csv"), made.rule, made.setting, chance=0.1)
    assert json.loads(files.to_json(again.to_dict())) == json.loads(files.to_json(outcome.verdict.to_dict()))
    assert "not used by this rule" not in str(outcome.verdict)
    assert "untrained teacher" in str(outcome.verdict)


def test_the_report_holds_every_figure_and_table(smoke: tuple[Results, StudyOutcome]) -> None:
    results, outcome = smoke
    assert {path.stem for path in (outcome.folder / "figures").glob("*.svg")} == {
        "outcomes", "splits", "gain", "specific", "maps-cca", "maps-cka", "maps-procrustes", "probes",
    }  # fmt: skip
    tables = {table.id: table for table in analysis.tables(results)}
    assert set(tables) == {
        "outcomes", "teachers", "training", "depth-svcca", "depth-cka", "depth-procrustes", "directions",
        "probes-labels", "probes-teacher",
    }  # fmt: skip
    assert [row[0] for row in tables["outcomes"].rows][-1] == "SD: taught by H"
    assert tables["depth-cka"].columns[1:6] == ("H", "D", "SP", "LS", "U")
    odds, targets = probabilities(results, "T/1/predict")
    soft = odds**0.25 / (odds**0.25).sum(1, keepdims=True)
    seed, _, accuracy, soft_entropy = tables["teachers"].rows[1]
    assert (seed, accuracy) == ("1", pytest.approx(100 * (odds.argmax(1) == targets).mean()))
    assert soft_entropy == pytest.approx(-(soft * np.log(soft)).sum(1).mean(), rel=1e-6)
    for role in ("D/1/probes-labels", "D/1/probes-teacher"):
        kept = results.folder(role).result("probes")
        table, layer = tables[role.split("/")[-1]], kept["probes"][-1]
        hard = results.folder(role.replace("D", "H", 1)).result("probes")["probes"][-1]
        assert table.rows[-1][0] == layer["layer"]
        assert table.rows[-1][4][1] == pytest.approx(layer["value"] - hard["value"], abs=6e-4)
        assert "seconds" not in layer
        assert (kept["n_train"], kept["n_test"]) == (100, 100)


def test_probes_are_of_the_students_layers_and_the_own_teacher(smoke: tuple[Results, StudyOutcome]) -> None:
    results, _ = smoke
    of = results.plan.roles["D/1/probes-teacher"]
    assert isinstance(of, ProbesRecipe)
    found = results.folder("D/1/probes-teacher").result("probes")

    def end(arm: str) -> nn.Module:
        run = results.plan.roles[f"{arm}/1/train"]
        assert isinstance(run, TrainRecipe)
        path = results.folder(f"{arm}/1/train").path / f"checkpoints/step-{run.clock.total_steps:06d}.safetensors"
        return loaded(network(run.model, run.data, 0), path)

    held = parts(of.data)
    pairs = [fixed_batches(held.validation, 100), fixed_batches(held.test, 100, 100)]
    again = probes(end("D"), *pairs, of.layers, target=end("T"))
    assert {row["layer"]: row["value"] for row in found["probes"]} == pytest.approx(again.values, rel=1e-6)
    told = summary(results.folder("D/1/probes-teacher"))
    assert told["r2 at head.relu2"] == pytest.approx(again.values["head.relu2"], rel=1e-6)


def test_every_kind_of_run_has_a_summary() -> None:
    assert {kind.model_fields["kind"].default for kind in get_args(Recipe)} == set(_KINDS)


def test_a_copy_of_its_teacher_agrees_with_it_in_everything(smoke: tuple[Results, StudyOutcome]) -> None:
    results, _ = smoke
    teacher = results.plan.roles["T/0/train"]
    assert isinstance(teacher, TrainRecipe)
    same = recipe._compared(SETTINGS["smoke"].at(0), 0, teacher, teacher)
    roles = {
        **results.plan.roles, "D/0/predict": results.plan.roles["T/0/predict"], "D/0/layers-0": same,
    }  # fmt: skip
    run_step(str(results.store.create(same).path))
    copied = Results(replace(results.plan, roles=roles), results.store)
    found = numbers.agreement(copied, "D", 0)
    assert found is not None
    assert (found.agreement, found.kl_a_b, found.kl_b_a) == (1.0, 0.0, 0.0)
    for measure in numbers.measures(copied):
        # Similarities of float32 activations: their moments are summed in float64, and CCA whitens.
        assert numbers.diagonal(copied, "D", 0, 0, measure) == pytest.approx(np.ones(2), abs=1e-6)
        assert numbers.gain(copied, "D", 0, measure) == pytest.approx(np.ones(2), abs=1e-4)


def outputs(folder: Path) -> dict[str, bytes]:
    kept = [folder / "table.csv", folder / "verdict.json", *sorted((folder / "figures").glob("*.svg"))]
    return {path.name: path.read_bytes() for path in kept}


def test_a_study_that_was_stopped_goes_on_to_the_same_bytes(
    smoke: tuple[Results, StudyOutcome], tmp_path: Path
) -> None:
    results, outcome = smoke
    shutil.copytree(results.store.root, tmp_path / "runs")
    store = Store(tmp_path / "runs")
    shutil.rmtree(study_folder(results.plan, store.root))
    for role in ("D/1/train", "LS/0/train", "D/1/predict", "SP/0/layers-1", "H/1/probes-teacher"):
        shutil.rmtree(store.folder(results.plan.roles[role]).path)
    (store.folder(results.plan.roles["H/0/train"]).path / "DONE").unlink()
    again = run_study(results.plan, store.root, jobs=1, progress=lambda event: None)
    assert outputs(again.folder) == outputs(outcome.folder)


def test_a_diverged_teacher_leaves_its_seed_missing_and_the_report_whole(
    smoke: tuple[Results, StudyOutcome], tmp_path: Path
) -> None:
    shutil.copytree(smoke[0].store.root, tmp_path / "runs")
    results = Results(smoke[0].plan, Store(tmp_path / "runs"))
    for role in results.plan.roles:
        arm, seed, kind = role.split("/")
        if (seed == "0" and arm != "H" and kind != "train") or kind in ("layers-0", "probes-teacher"):
            lose(results, role)
    outcome = conclude(results.plan, results.store.root)
    rows = judged(results, 0)
    assert rows.keys() == judged(smoke[0], 0).keys()
    assert {arm for (arm, _), value in rows.items() if not math.isnan(value)} == {"H"}
    assert {part.effect.answer for part in outcome.verdict.parts} == {"open"}
    assert outcome.verdict.words in outcome.report.read_text().replace("&#39;", "'")
    tables = {table.id: table for table in analysis.tables(results)}
    assert {"outcomes", "depth-cka", "directions", "probes-teacher"} <= set(tables)


def test_where_all_diverged_the_verdict_is_open(smoke: tuple[Results, StudyOutcome], tmp_path: Path) -> None:
    shutil.copytree(smoke[0].store.root, tmp_path / "runs")
    results = Results(smoke[0].plan, Store(tmp_path / "runs"))
    for role, one in results.plan.roles.items():
        if isinstance(one, CompareRecipe | PredictRecipe | ProbesRecipe):
            lose(results, role)
    found = judge(results.plan, numbers.table(results), results)
    assert {part.effect.answer for part in found.parts} == {"open"}
    assert {(row["arm"], row["quantity"]) for row in numbers.table(results)} == {
        (row["arm"], row["quantity"]) for row in numbers.table(smoke[0])
    }
    assert next(table.id for table in analysis.tables(results)) == "outcomes"
    assert {figure.id for figure in drawings(results)} >= {"outcomes"}

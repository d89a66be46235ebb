"""Steps on digits: each result against the same computed by hand, seeds that change only what is theirs, costs."""

import copy
import gc
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import closerlook as cl
from closerlook import files
from closerlook.data import TensorBatches
from closerlook.data.cifar import RESOLUTIONS as CIFAR
from closerlook.data.fashion import RESOLUTIONS as FASHION
from closerlook.errors import PointMissingError, StoreError, UsageError
from closerlook.landscape import Profile, Surface, reader
from closerlook.launch import launch, pool
from closerlook.models import VGG
from closerlook.runs.identity import run_id, source_hash
from closerlook.runs.recipe import (
    Average,
    BarriersRecipe,
    Bend,
    ConnectRecipe,
    DataSpec,
    File,
    ModelSpec,
    OptimizerSpec,
    PredictRecipe,
    ProfileRecipe,
    Recipe,
    Seeds,
    Snapshot,
    SurfaceRecipe,
    TrainRecipe,
)
from closerlook.runs.store import RunFolder, Store
from closerlook.schedules import Constant, Restarts
from closerlook.steps import cost as cost_module
from closerlook.steps import run_step
from closerlook.steps.cost import cost, flops_per_image
from closerlook.steps.points import Resolver
from closerlook.steps.setting import network, parts, source, training_batches

DATA = DataSpec(name="digits", n_train=300, n_validation=100, n_statistics=80, n_read=120, seed=100)
MODEL = ModelSpec(name="vgg11_bn", options={"width": 0.0625, "head": "linear", "init": "he"})
SMALL = ModelSpec(name="mlp", options={"hidden": (5,)})


def training(**changed: Any) -> TrainRecipe:
    settings = {
        "data": DATA, "model": MODEL, "optimizer": OptimizerSpec(lr=0.1), "schedule": Restarts(first="1ep"),
        "epochs": 3, "batch_size": 50, "seeds": Seeds.of(100), **changed,
    }  # fmt: skip
    return TrainRecipe(**settings)


TRUNK = training(snapshots=("1ep",), forks=("1ep",))
A, B = Snapshot(run=run_id(TRUNK), step=6), Snapshot(run=run_id(TRUNK), step=18)
BRANCH = training(start=A, schedule=Restarts(first="2ep"), epochs=2)
CURVE = ConnectRecipe(
    data=DATA, model=MODEL, a=A, b=B, optimizer=OptimizerSpec(lr=0.05, weight_decay=1e-3), epochs=2, batch_size=50,
    bends=2, seed=100,
)  # fmt: skip
BENDS = Bend(run=run_id(CURVE)), Bend(run=run_id(CURVE), index=2)
GRAPH: dict[str, Recipe] = {
    "trunk": TRUNK,
    "branch": BRANCH,
    "curve": CURVE,
    "along": ProfileRecipe(data=DATA, model=MODEL, curve="polychain", points=(A, *BENDS, B), t=4),
    "line": ProfileRecipe(data=DATA, model=MODEL, points=(A, B), t=5, splits=("train",)),
    "plane": SurfaceRecipe(data=DATA, model=MODEL, points=(A, BENDS[0], B), grid=(3, 2), marks={"branch": B}),
    "barriers": BarriersRecipe(data=DATA, model=MODEL, points={"a": A, "b": B, "bend": BENDS[0]}, t=5),
    "predict": PredictRecipe(data=DATA, model=MODEL, points={"a": A, "mean": Average(of=(A, B)), "bend": BENDS[0]}),
}


def finish(store: Store, *recipes: Recipe) -> list[RunFolder]:
    with pool(1) as executor:
        launch(recipes, store, executor, 1, lambda event: None)
    return [store.folder(recipe) for recipe in recipes]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All the steps of the graph, finished."""
    made = Store(tmp_path_factory.mktemp("runs"))
    finish(made, *GRAPH.values())
    return made


def folder(store: Store, role: str) -> RunFolder:
    return store.folder(GRAPH[role])


def states(store: Store, step: int, role: str = "trunk") -> dict[str, Tensor]:
    return files.read_tensors(folder(store, role).path / "checkpoints" / f"step-{step:06d}.safetensors")[0]


def loaders() -> dict[str, TensorBatches]:
    held = parts(DATA)
    return {name: TensorBatches(*getattr(held, name), 500) for name in ("read", "test", "statistics", "validation")}


def test_every_step_is_finished_and_whole(store: Store) -> None:
    for role in GRAPH:
        assert folder(store, role).done
        assert folder(store, role).damage() == []
        assert folder(store, role).recipe() == GRAPH[role]


def test_train_is_cl_train_with_the_parts_of_the_data(store: Store) -> None:
    batches = training_batches(DATA, 50, False, 100, 100)
    assert torch.equal(batches.inputs, parts(DATA).train.inputs.contiguous(memory_format=torch.channels_last))
    result = cl.train(
        network(MODEL, DATA, 100), batches, epochs=3, lr=0.1, momentum=0.9, weight_decay=5e-4,
        schedule=Restarts(first="1ep"), validation=loaders()["validation"], seed=100,
    )  # fmt: skip
    model = network(MODEL, DATA, 0)
    assert torch.equal(cl.WeightSpace(model).point(states(store, 18)).vector, result.point.vector)
    assert folder(store, "trunk").result("outcome") == {"diverged_at": None}
    rows = (folder(store, "trunk").path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == list(result.history)


def test_a_branch_repeats_its_trunk(store: Store) -> None:
    # Restarts of one epoch, doubled: the second cycle of the trunk is the branch.
    trunk, branch = states(store, 18), states(store, 12, "branch")
    assert all(torch.equal(trunk[name], branch[name]) for name in trunk)


def test_the_profile_comes_back_and_its_ends_are_the_networks(store: Store) -> None:
    stored = folder(store, "along").result("profile")
    found = Profile.from_dict(stored)
    assert {**found.to_dict(), "length": stored["length"]} == stored
    assert list(found.t) == [0, 1 / 3, 2 / 3, 1]
    assert found.n == {"train": 120, "test": 360}
    assert stored["length"] == pytest.approx(found.steps.sum())
    assert stored["length"] == folder(store, "curve").result("curve")["length"]
    model, by_name = network(MODEL, DATA, 0), loaders()
    for end, step in zip(found.ends, (6, 18), strict=True):
        model.load_state_dict(states(store, step))
        assert end["test_loss"] == cl.evaluate(model, by_name["test"]).loss
        assert end["train_accuracy"] == cl.evaluate(model, by_name["read"]).accuracy
    by_hand = cl.profile(
        model, cl.line(states_point(store, 6), states_point(store, 18)), {"train": by_name["read"]}, 5,
        stats_loader=by_name["statistics"],
    )  # fmt: skip
    line = Profile.from_dict(folder(store, "line").result("profile"))
    assert np.array_equal(line.values["train_loss"], by_hand.values["train_loss"])
    assert line.values.keys() == {"train_loss", "train_accuracy", "train_error"}


def states_point(store: Store, step: int) -> cl.Point:
    return cl.WeightSpace(network(MODEL, DATA, 0)).point(states(store, step))


def test_the_curve_was_trained_away_from_the_segment(store: Store) -> None:
    a, b = (states_point(store, step).vector for step in (6, 18))
    bends = files.read_tensors(folder(store, "curve").path / "results" / "curve.safetensors")[0]
    assert list(bends) == ["point.1", "point.2"]
    last = files.read_tensors(folder(store, "curve").path / "checkpoints" / "step-000012.safetensors")[0]
    for index, share in ((1, 1 / 3), (2, 2 / 3)):
        bend = bends[f"point.{index}"]
        assert torch.equal(bend, last[f"point.{index}"])
        assert 0.01 < torch.dist(bend, (1 - share) * a + share * b) < torch.dist(a, b)
    assert folder(store, "curve").result("curve") == {
        "diverged": False,
        "length": pytest.approx(float(sum(map(torch.dist, [a, *bends.values()], [*bends.values(), b]))), rel=1e-4),
    }


def test_the_surface_comes_back_with_its_marks(store: Store) -> None:
    stored = folder(store, "plane").result("surface")
    found = Surface.from_dict(stored)
    assert found.to_dict() == stored
    assert found.values["test_loss"].shape == (2, 3)
    assert set(found.marks) == {"w_0", "w_1", "w_2", "branch"}
    assert (found.marks["branch"].x, found.marks["branch"].y) == (found.marks["w_2"].x, found.marks["w_2"].y)
    assert (found.marks["w_0"].x, found.marks["w_0"].y) == (0, 0)
    assert all(mark.distance < 1e-3 for mark in found.marks.values())


def test_the_barriers_are_those_of_the_segments(store: Store) -> None:
    stored = folder(store, "barriers").result("barriers")
    values, distances = np.array(stored["values"]), np.array(stored["distances"])
    line = Profile.from_dict(folder(store, "line").result("profile"))
    assert stored["labels"] == ["a", "b", "bend"]
    assert values[0, 1] == values[1, 0] == line.barrier().value
    assert distances[0, 1] == pytest.approx(line.steps.sum())
    for matrix in (values, distances):
        assert np.array_equal(matrix, matrix.T)
        assert np.array_equal(np.diag(matrix), np.zeros(3))


def test_logits_are_the_networks_and_an_average_has_statistics_of_its_own(store: Store) -> None:
    logits = files.read_arrays(folder(store, "predict").path / "results" / "logits.npz")
    model, by_name = network(MODEL, DATA, 0), loaders()
    assert np.array_equal(logits["targets"], parts(DATA).test.targets)
    model.load_state_dict(states(store, 6))
    assert np.array_equal(logits["a"], cl.evaluate(model, by_name["test"], outputs=True).outputs)
    first, second = states(store, 6), states(store, 18)
    mean = {name: (first[name] + second[name]) / 2 for name in first if "running" not in name and "num" not in name}
    found = cl.profile(
        model, cl.line(*2 * [cl.WeightSpace(model).point(mean | {k: first[k] for k in first if k not in mean})]),
        {"test": by_name["test"]}, [0.5], stats_loader=by_name["statistics"],
    )  # fmt: skip
    accuracy = (logits["mean"].argmax(1) == logits["targets"]).mean()
    assert accuracy == pytest.approx(found.values["test_accuracy"][0], abs=0.003)
    assert not np.array_equal(logits["mean"], logits["a"])
    assert logits["bend"].shape == (360, 10)


def test_a_finished_step_is_not_done_again(store: Store) -> None:
    run = folder(store, "line")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.path.rglob("*")}
    assert run_step(str(run.path)) == run.id
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.path.rglob("*")} == before


def test_a_step_runs_on_one_thread_and_gives_the_others_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (run,) = finish(Store(tmp_path), training(model=SMALL, epochs=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert files.read_json(run.path / "environment.json")["threads"] == 1


def test_a_step_leaves_no_tensor_behind_for_the_collector(store: Store) -> None:
    def tensors() -> int:
        return sum(type(item) in (Tensor, torch.nn.Parameter) for item in gc.get_objects())

    store.remove(run_id(GRAPH["line"]))
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        finish(store, GRAPH["line"])
        assert tensors() == before
    finally:
        gc.enable()


def test_a_path_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train-0").mkdir()
    with pytest.raises(StoreError, match="is no run folder"):
        run_step(str(tmp_path / "train-0"))


def test_an_attempt_that_fails_notes_its_time_and_is_not_done(tmp_path: Path) -> None:
    run = Store(tmp_path).create(training(model=ModelSpec(name="mlp", options={"width": 3})))
    with pytest.raises(UsageError, match="mlp has no option width"):
        run_step(str(run.path))
    assert not run.done
    assert run.seconds()[0] >= 0
    assert (run.path / "timings.jsonl").read_text().count("\n") == 1


# Seeds


def outcome(store: Store, recipe: TrainRecipe) -> tuple[bytes, bytes]:
    """The initial and the last checkpoint."""
    (run,) = finish(store, recipe)
    last = recipe.clock.total_steps
    first, end = (run.path / "checkpoints" / f"step-{step:06d}.safetensors" for step in (0, last))
    return first.read_bytes(), end.read_bytes()


@pytest.mark.parametrize(
    ("setting", "matters"),
    [
        ({"model": SMALL}, {"init", "order"}),
        ({"model": SMALL, "augment": True}, {"init", "order", "augment"}),
        (
            {"model": ModelSpec(name="vgg11", options={"width": 0.0625, "init": "he"}), "augment": True},
            {"init", "order", "augment", "noise"},
        ),
    ],
)
def test_every_seed_changes_what_is_its_own(setting: dict[str, Any], matters: set[str], tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, last = outcome(store, training(**setting, epochs=1))
    for name in ("init", "order", "augment", "noise"):
        seeds = Seeds.of(100).model_copy(update={name: 7})
        other_first, other_last = outcome(store, training(**setting, epochs=1, seeds=seeds))
        assert (other_first != first) == (name == "init"), name
        assert (other_last != last) == (name in matters), name


def test_the_subset_has_its_seed_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, last = outcome(store, training(model=SMALL, epochs=1))
    data = DATA.model_copy(update={"seed": 7})
    other_first, other_last = outcome(store, training(model=SMALL, epochs=1, data=data))
    assert first == other_first
    assert last != other_last
    assert not torch.equal(parts(DATA).read.inputs, parts(data).read.inputs)


# What a recipe may leave out, and what it must not


def test_adam_and_bf16_train(tmp_path: Path) -> None:
    adam = OptimizerSpec(name="adam", lr=0.01)
    plain, low = finish(
        Store(tmp_path), training(model=SMALL, optimizer=adam, schedule=Constant(), epochs=20),
        training(model=SMALL, optimizer=adam, schedule=Constant(), epochs=20, precision="bf16"),
    )  # fmt: skip
    for run in (plain, low):
        rows = [json.loads(row) for row in (run.path / "metrics.jsonl").read_text().splitlines()]
        assert rows[-1]["validation_accuracy"] > 0.5
    assert (plain.path / "metrics.jsonl").read_bytes() != (low.path / "metrics.jsonl").read_bytes()


def test_a_curve_can_be_trained_by_adam(store: Store, tmp_path: Path) -> None:
    (tmp_path / A.run).symlink_to(store.root / A.run)
    adam = CURVE.model_copy(update={"optimizer": OptimizerSpec(name="adam", lr=0.01)})
    (run,) = finish(Store(tmp_path), adam)
    assert run.result("curve")["diverged"] is False


def test_without_validation_images_there_is_no_validation(tmp_path: Path) -> None:
    data = DATA.model_copy(update={"n_validation": 0})
    (run,) = finish(Store(tmp_path), training(model=SMALL, data=data, epochs=1))
    (row,) = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    assert set(row) == {"step", "epoch", "lr", "loss", "weight_norm"}


def test_statistics_are_needed_by_batch_norm_alone(tmp_path: Path) -> None:
    data = DATA.model_copy(update={"n_statistics": 0})
    for model, words in ((SMALL, None), (MODEL, r"vgg11_bn has batch norm.*set data\.n_statistics")):
        trunk = training(model=model, data=data, epochs=1)
        points = (Snapshot(run=run_id(trunk), step=0), Snapshot(run=run_id(trunk), step=6))
        recipe = ProfileRecipe(data=data, model=model, points=points, t=3)
        if words is None:
            finish(Store(tmp_path), trunk, recipe)
        else:
            with pytest.raises(cl.CloserlookError, match=words):
                finish(Store(tmp_path), trunk, recipe)


def test_a_step_that_a_run_does_not_keep_is_a_mistake_and_not_a_missing_result(store: Store) -> None:
    find = Resolver(network(MODEL, DATA, 0), RunFolder(store.root / "profile-0"))
    with pytest.raises(UsageError, match=r"keeps no step at step 7; put that time into its snapshots") as caught:
        find.point(Snapshot(run=A.run, step=7))
    assert not isinstance(caught.value, PointMissingError)
    bad = training(start=Snapshot(run=A.run, step=12))
    with pytest.raises(cl.CloserlookError, match=r"keeps no fork at step 12; put that time into its forks"):
        finish(store, bad)
    assert not store.folder(bad).done
    store.remove(run_id(bad))


def test_a_file_is_known_by_its_content(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save(states(store, 6), path)
    ref = File(path=str(path), sha256=files.sha256(path))
    find = Resolver(network(MODEL, DATA, 0), RunFolder(store.root / "profile-0"))
    assert torch.equal(find.point(ref).vector, states_point(store, 6).vector)
    assert find.point(ref).buffers
    torch.save(states(store, 18), path)
    with pytest.raises(UsageError, match=r"mine\.pt changed since this recipe was made"):
        find.point(ref)


USERS = """
import torch
from torch import nn

def network(units=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, units), nn.ReLU(), nn.Linear(units, 2))

def data():
    x = torch.randn(40, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    part = (x, (x.sum((1, 2, 3)) > 0).long())
    return part, part, part
"""


def test_the_users_own_model_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_network_and_data.py").write_text(USERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    from users_network_and_data import data, network  # type: ignore[import-not-found]

    spec = DataSpec(
        name="users_network_and_data:data", n_train=30, n_validation=10, n_statistics=0, n_read=20, seed=0,
        source=source_hash(data),
    )  # fmt: skip
    model = ModelSpec(name="users_network_and_data:network", options={"units": 5}, source=source_hash(network))
    recipe = training(data=spec, model=model, epochs=40, batch_size=10, schedule=Constant())
    (run,) = finish(Store(tmp_path / "runs"), recipe)
    row = json.loads((run.path / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["validation_accuracy"] > 0.8
    assert cost(recipe).flops == 0
    assert cost(recipe).images == 40 * (3 * 30 + 10)


# Costs


@pytest.fixture
def forwarded() -> Iterator[list[int]]:
    """The images of every pass through a VGG."""
    seen: list[int] = []

    def look(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, VGG):
            seen.append(len(inputs[0]))

    handle = torch.nn.modules.module.register_module_forward_hook(look)
    yield seen
    handle.remove()


@pytest.mark.parametrize("role", GRAPH)
def test_the_cost_of_a_step_is_what_it_does(
    role: str, store: Store, tmp_path: Path, forwarded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = GRAPH[role]
    # A few batches by which loaders, model and layout are probed are not counted as cost.
    monkeypatch.setattr(reader, "check_repeatable", lambda *_: None)
    for name in ("landscape.reader", "landscape.connect", "training.network"):
        module = import_module(f"closerlook.{name}")
        monkeypatch.setattr(module, "fitting_layout", lambda model, loader, feed, asked, gradients=False: asked)
    for needed in {A.run, run_id(CURVE)} - {run_id(recipe)}:
        (tmp_path / needed).symlink_to(store.root / needed)
    again = Store(tmp_path)
    finish(again, recipe)
    seen = sum(forwarded)  # counting operations passes one image more
    known = cost(recipe)
    if isinstance(recipe, TrainRecipe | ConnectRecipe):
        # Backward passes count as two forward passes.
        assert known.steps == recipe.epochs * 6
        assert known.images == seen + 2 * recipe.epochs * DATA.n_train
    else:
        assert known.steps == 0
        assert known.images == seen


def test_flops_are_those_counted_by_hand() -> None:
    def spec(**options: Any) -> str:
        return ModelSpec(name="vgg11_bn", options={"head": "linear", **options}).model_dump_json()

    channels, sides = (3, 64, 128, 256, 256, 512, 512, 512, 512), (32, 16, 8, 8, 4, 4, 2, 2)
    convolutions = sum(  # on maps of 2x2 every pixel meets every other, and nothing meets the padding
        2 * min(9, side**2) * below * above * side**2
        for below, above, side in zip(channels, channels[1:], sides, strict=False)
    )
    assert convolutions == 305_528_832 - 2 * (2 * 5 * 512 * 512 * 2**2)
    assert flops_per_image(spec(), "cifar10", None) == convolutions + 2 * 512 * 10
    assert flops_per_image(spec(), "cifar10", 16) < convolutions / 3
    narrow = flops_per_image(spec(width=0.25), "cifar10", None)
    assert convolutions / 16 < narrow < convolutions / 14
    recipe = training(data=DATA.model_copy(update={"name": "cifar10"}), model=ModelSpec.model_validate_json(spec()))
    assert cost(recipe).images == 3 * (3 * 300 + 100)
    assert cost(recipe).flops == 3000 * (convolutions + 2 * 512 * 10)


def test_what_the_cost_knows_of_the_data_is_right() -> None:
    for name in ("digits", "synthetic"):
        held = source(name, None)
        assert cost_module._KNOWN[name] == (held.input_shape(), held.classes, len(held.test_targets))
    for name, resolutions, channels in (("fashion", FASHION, 1), ("cifar10", CIFAR, 3)):
        assert cost_module._KNOWN[name] == ((channels, resolutions[0], resolutions[0]), 10, 10_000)


def test_counting_leaves_the_generators_alone() -> None:
    flops_per_image.cache_clear()
    before = copy.deepcopy(torch.get_rng_state())
    assert cost(TRUNK).flops > 0
    assert torch.equal(before, torch.get_rng_state())

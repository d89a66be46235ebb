"""Distillation in recipes, on digits: each student against the same trained by hand, and what it begins from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

import closerlook as cl
from closerlook import files
from closerlook.batches import without_extra
from closerlook.data import as_soft_as, permuted_within_class
from closerlook.errors import UsageError
from closerlook.runs.identity import identity, run_id
from closerlook.runs.recipe import (
    ADAPTER,
    BoundaryRecipe,
    DataSpec,
    File,
    ModelSpec,
    OptimizerSpec,
    Recipe,
    Seeds,
    Snapshot,
    Teacher,
    TrainRecipe,
    inputs_of,
)
from closerlook.runs.store import RunFolder, Store
from closerlook.steps import run_step
from closerlook.steps.cost import cost
from closerlook.steps.setting import fixed_batches, network, parts, training_batches
from closerlook.weights import named

DATA = DataSpec(name="digits", n_train=200, n_validation=100, n_statistics=50, n_read=100, seed=100)
LARGE = ModelSpec(name="vgg11_bn", options={"width": 0.0625, "head": "linear", "init": "he"})
SMALL = ModelSpec(name="mlp", options={"hidden": (12, 9)})


def training(**changed: Any) -> TrainRecipe:
    settings = {
        "data": DATA, "model": SMALL, "optimizer": OptimizerSpec(lr=0.05), "epochs": 2, "batch_size": 50,
        "seeds": Seeds.of(3), **changed,
    }  # fmt: skip
    return TrainRecipe(**settings)


TEACHER = training(model=LARGE, seeds=Seeds.of(7))
LAST, FIRST = Snapshot(run=run_id(TEACHER), step=8), Snapshot(run=run_id(TEACHER), step=0)
HARD = training()
END = Snapshot(run=run_id(HARD), step=8)


def told(soft: Any = "live", point: Snapshot = LAST, **settings: Any) -> Teacher:
    return Teacher(model=LARGE, point=point, temperature=2.0, mixing=0.75, soft=soft, **settings)


def finish(store: Store, *recipes: Recipe) -> list[RunFolder]:
    for recipe in recipes:
        run_step(str(store.create(recipe).path))
    return [store.folder(recipe) for recipe in recipes]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The teacher and the student that learns from labels, finished."""
    made = Store(tmp_path_factory.mktemp("runs"))
    finish(made, TEACHER, HARD)
    return made


def states(store: Store, point: Snapshot) -> dict[str, Tensor]:
    return files.read_tensors(store.folder(point.run).path / "checkpoints" / f"step-{point.step:06d}.safetensors")[0]


def outcome(store: Store, recipe: TrainRecipe) -> dict[str, Tensor]:
    finish(store, recipe)
    return states(store, Snapshot(run=run_id(recipe), step=recipe.clock.total_steps))


def by_hand(distil: cl.distil, extra: Tensor | None = None, augment: bool = False) -> dict[str, Tensor]:
    model = network(SMALL, DATA, 3)
    result = cl.train(
        model, training_batches(DATA, 50, augment, 3, 3, extra=extra), epochs=2, lr=0.05, momentum=0.9,
        weight_decay=5e-4, seed=3, interventions=[distil], batch_fn=None if extra is None else without_extra(),
    )  # fmt: skip
    return cl.WeightSpace(model).state_dict(result.point)


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def apart(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def teacher(store: Store, point: Snapshot = LAST) -> nn.Module:
    return cl.loaded(network(LARGE, DATA, 0), states(store, point))


@pytest.mark.parametrize("augment", [False, True])
def test_a_live_teacher_sees_the_students_batches(store: Store, augment: bool) -> None:
    found = outcome(store, training(teacher=told(), augment=augment))
    assert same(found, by_hand(cl.distil(teacher(store), 2.0, 0.75), augment=augment))
    assert apart(found, outcome(store, training(augment=augment))) > 1e-2


def test_cached_soft_targets_are_those_of_the_plain_images(store: Store) -> None:
    soft = cl.teacher_logits(teacher(store), fixed_batches(parts(DATA).train, 500))
    found = outcome(store, training(teacher=told("cached")))
    assert same(found, by_hand(cl.distil(None, 2.0, 0.75), soft))
    # In float32 the last bits of logits differ between batches of other images.
    assert apart(found, outcome(store, training(teacher=told()))) < 1e-4


def test_permuted_soft_targets_are_of_other_images_of_the_same_class(store: Store) -> None:
    soft = cl.teacher_logits(teacher(store), fixed_batches(parts(DATA).train, 500))
    chosen = permuted_within_class(parts(DATA).train.targets, 5)
    found = outcome(store, training(teacher=told("permuted", seed=5)))
    assert same(found, by_hand(cl.distil(None, 2.0, 0.75), soft[chosen]))
    for other in (told("permuted", seed=6), told("cached", seed=5)):
        assert apart(found, outcome(store, training(teacher=other))) > 1e-3


def test_smoothed_labels_are_as_soft_as_the_teacher_and_know_nothing_else(store: Store) -> None:
    images = parts(DATA).train
    soft = cl.teacher_logits(teacher(store), fixed_batches(images, 500))
    found = outcome(store, training(teacher=told("smoothed")))
    assert same(found, by_hand(cl.distil(None, 2.0, 0.75), as_soft_as(soft, images.targets, 2.0)))
    assert apart(found, outcome(store, training(teacher=told("cached")))) > 1e-3


def test_an_untrained_teacher_is_the_snapshot_of_step_0(store: Store) -> None:
    found = outcome(store, training(teacher=told(point=FIRST)))
    assert same(found, by_hand(cl.distil(network(LARGE, DATA, 7), 2.0, 0.75)))


def test_a_half_is_taken_over_and_the_rest_trained_again(store: Store) -> None:
    layers = [name.removesuffix(".weight") for name in states(store, END) if name.endswith(".weight")]
    front, last = f"{layers[0]}.*", f"{layers[-1]}.*"
    recipe = training(
        teacher=told(), weights=END, fresh=(last,), interventions=(cl.freeze(front, end="1dur"),), seeds=Seeds.of(9)
    )
    found, hard, own = outcome(store, recipe), states(store, END), named(network(SMALL, DATA, 9)).state()
    begun = states(store, Snapshot(run=run_id(recipe), step=0))
    for name in found:
        place = 0 if name.startswith(layers[0]) else 2 if name.startswith(layers[-1]) else 1
        assert torch.equal(begun[name], own[name] if place == 2 else hard[name]), name
        assert torch.equal(found[name], begun[name]) == (place == 0), name
    assert same(states(store, END), hard)


def test_weights_come_without_the_state_of_the_optimizer(store: Store) -> None:
    found = outcome(store, training(weights=END, seeds=Seeds.of(9)))
    model = cl.loaded(network(SMALL, DATA, 0), states(store, END))
    result = cl.train(
        model, training_batches(DATA, 50, False, 9, 9), epochs=2, lr=0.05, momentum=0.9, weight_decay=5e-4, seed=9
    )
    assert same(found, cl.WeightSpace(model).state_dict(result.point))


def test_a_checkpoint_made_elsewhere_can_teach(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    torch.save(teacher(store).state_dict(), path)
    ref = File(path=str(path), sha256=files.sha256(path))
    recipe = training(teacher=Teacher(model=LARGE, point=ref, temperature=2.0, mixing=0.75))
    assert same(outcome(store, recipe), outcome(store, training(teacher=told())))
    path.write_bytes(b"other")
    with pytest.raises(UsageError, match="changed since this recipe was made"):
        finish(store, recipe.model_copy(update={"epochs": 1}))


def test_what_takes_from_a_diverged_run_is_missing(store: Store) -> None:
    wild = training(model=LARGE, optimizer=OptimizerSpec(lr=1e25))
    finish(store, wild)
    point = Snapshot(run=run_id(wild), step=8)
    student, late = training(teacher=told(point=point)), training(model=LARGE, weights=point)
    for folder in finish(store, student, late):
        assert folder.result("missing")["reason"] == f"{point.run} has no step at step 8: it diverged before"
    second = training(teacher=Teacher(model=SMALL, point=Snapshot(run=run_id(student), step=8)))
    assert "missing" in str(list((finish(store, second)[0].path / "results").iterdir()))


def test_a_boundary_of_a_taught_student(store: Store) -> None:
    recipe = BoundaryRecipe(train=training(teacher=told(), epochs=1), low=0.05, high=0.07, trains=0.0)
    assert inputs_of(recipe) == (LAST.run,)
    rows = finish(store, recipe)[0].result("boundary")["tried"]
    alone = training(teacher=told(), epochs=1)
    outcome(store, alone)
    assert rows[0]["validation_accuracy"] == store.folder(alone).journal()[-1]["validation_accuracy"]


# Recipes --------------------------------------------------------------------------------------------------------------


def test_the_runs_that_it_takes_from_are_its_inputs() -> None:
    recipe = training(teacher=told(), weights=END)
    assert set(inputs_of(recipe)) == {LAST.run, END.run}
    again = ADAPTER.validate_json(recipe.model_dump_json())
    assert again == recipe
    assert identity(again) == identity(recipe)


def test_every_setting_of_a_teacher_makes_another_run() -> None:
    plain = training(teacher=told())
    others = [
        training(), training(weights=END), training(weights=END, fresh=("*",)), training(teacher=told("cached")),
        training(teacher=told(point=FIRST)), training(teacher=told("permuted")),
        training(teacher=told("permuted", seed=1)),
        *(training(teacher=told().model_copy(update=change)) for change in ({"temperature": 3.0}, {"mixing": 0.5})),
    ]  # fmt: skip
    assert len({run_id(recipe) for recipe in [plain, *others]}) == 1 + len(others)
    # Recipes from before there were teachers keep their names.
    assert identity(training()) == identity(training(teacher=None, weights=None, fresh=()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weights": END, "start": END}, "not from both"),
        ({"fresh": ("head.*",)}, "fresh without weights"),
        ({"teacher": {"model": LARGE, "point": LAST, "soft": "frozen"}}, "'live', 'cached', 'permuted' or 'smoothed'"),
        ({"teacher": {"model": LARGE, "point": {"kind": "average", "of": (LAST, END)}}}, "'snapshot', 'file'"),
    ],
)
def test_recipes_that_cannot_work(wrong: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        training(**wrong)


def test_what_is_to_be_fresh_has_a_name(store: Store) -> None:
    with pytest.raises(UsageError, match=r"keep fresh matches 'haed\.\*'; the names are "):
        finish(store, training(weights=END, fresh=("haed.*",)))


def test_a_teacher_costs_forward_passes() -> None:
    bare, forward = cost(training()), cost(TEACHER).flops / cost(TEACHER).images
    for soft, images in (("live", 400), ("cached", 200), ("permuted", 200), ("smoothed", 200)):
        taught = cost(training(teacher=told(soft)))
        assert taught.steps == bare.steps
        assert taught.flops == pytest.approx(bare.flops + images * forward)

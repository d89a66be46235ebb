"""A recipe's identity: pinned, so that an accidental change of any hash is noticed; what is in it and what is not."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from closerlook.errors import UsageError
from closerlook.models import load_target
from closerlook.runs.identity import canonical, identity, run_id, source_hash
from closerlook.runs.recipe import (
    ADAPTER,
    Average,
    BarriersRecipe,
    Bend,
    ConnectRecipe,
    DataSpec,
    DirectionsRecipe,
    File,
    Frozen,
    ModelSpec,
    OptimizerSpec,
    PredictRecipe,
    ProfileRecipe,
    Recipe,
    Seeds,
    Snapshot,
    SurfaceRecipe,
    TrainRecipe,
    TrajectoryRecipe,
    inputs_of,
)
from closerlook.schedules import Constant, Cosine, Held, LinearDecay, Restarts, Schedule, StepDecay, Warmup

DATA = DataSpec(name="digits", n_train=600, n_validation=200, n_statistics=100, n_read=300, seed=100)
MODEL = ModelSpec(name="vgg11_bn", options={"width": 0.25, "head": "linear"})
A, B = Snapshot(run="train-0123abcd", step=84), Snapshot(run="train-4567abcd", step=36)
SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(0.5),
    "step_decay": StepDecay(at=("60ep", "120ep")),
    "linear_decay": LinearDecay(begin="0.5dur"),
    "cosine": Cosine(final=0.01),
    "restarts": Restarts(first="10ep"),
    "warmup": Warmup("200it"),
    "warmup and restarts": Warmup("200it", after=Restarts(first="10ep", mult=3)),
    "then": Constant().then(Cosine(), at="5ep"),
    "held": Held(Restarts(first="10ep", rest="1ep")),
}


def training(schedule: Schedule | None = None, **changed: Any) -> TrainRecipe:
    given = {} if schedule is None else {"schedule": schedule}
    settings = {
        "data": DATA, "model": MODEL, "optimizer": OptimizerSpec(lr=0.1), "epochs": 7, "batch_size": 50,
        "seeds": Seeds.of(100), **given,
    }  # fmt: skip
    return TrainRecipe(**{**settings, **changed})


CURVE = ConnectRecipe(
    data=DATA, model=MODEL, a=A, b=B, optimizer=OptimizerSpec(lr=0.05), epochs=3, batch_size=50, seed=1
)
PLANE = (A, Bend(run="connect-89ababcd"), B)
RECIPES: dict[str, Recipe] = {
    "train": training(),
    **{f"train, {name}": training(schedule) for name, schedule in SCHEDULES.items()},
    "train, fork": training(start=A, snapshots=("1ep", 3), forks=("2ep",), augment=True, precision="bf16"),
    "connect": CURVE,
    "connect, bezier": CURVE.model_copy(update={"curve": "bezier", "bends": 2, "schedule": Constant()}),
    "profile": ProfileRecipe(data=DATA, model=MODEL, points=(A, B)),
    "profile, curve": ProfileRecipe(data=DATA, model=MODEL, points=PLANE, curve="polychain", splits=("test",), t=61),
    "surface": SurfaceRecipe(data=DATA, model=MODEL, points=PLANE, marks={"30": A}),
    "directions": DirectionsRecipe(data=DATA, model=MODEL, point=A),
    "directions, hessian": DirectionsRecipe(data=DATA, model=MODEL, point=B, directions="hessian", seed=3, radius=0.5),
    "trajectory": TrajectoryRecipe(data=DATA, model=MODEL, names=("0", "9", "30"), points=PLANE),
    "barriers": BarriersRecipe(data=DATA, model=MODEL, points={"a": A, "b": File(path="b.pt", sha256="0" * 64)}),
    "predict": PredictRecipe(data=DATA, model=MODEL, points={"a": A, "mean": Average(of=(A, B))}),
}
# A changed line here makes every stored run of that kind another run: raise the recipe's version, and say why.
PINNED = {
    "train": "train-5a71be5c",
    "train, constant": "train-b8457c87",
    "train, step_decay": "train-d4cc4bef",
    "train, linear_decay": "train-7338071f",
    "train, cosine": "train-91ec2a1a",
    "train, restarts": "train-ca5b2510",
    "train, warmup": "train-11fd5071",
    "train, warmup and restarts": "train-1f064a41",
    "train, then": "train-6751b949",
    "train, held": "train-ef8ed33f",
    "train, fork": "train-4452cc4d",
    "connect": "connect-d9f2811f",
    "connect, bezier": "connect-e8761bb3",
    "profile": "profile-2ea7bce1",
    "profile, curve": "profile-bc03cf9b",
    "surface": "surface-e19c0a57",
    "directions": "directions-2d3d92e3",
    "directions, hessian": "directions-c711e7c2",
    "trajectory": "trajectory-80a99818",
    "barriers": "barriers-ad23fb9c",
    "predict": "predict-dd07a046",
}


def test_the_hashes_are_the_pinned_ones() -> None:
    assert {name: run_id(recipe) for name, recipe in RECIPES.items()} == PINNED


def test_the_name_is_the_kind_and_the_first_digits_of_the_hash() -> None:
    recipe = training()
    assert run_id(recipe) == f"train-{identity(recipe)[:8]}"
    assert len(identity(recipe)) == 64


def test_recipes_are_all_different() -> None:
    assert len({identity(recipe) for recipe in RECIPES.values()}) == len(RECIPES)


def test_defaults_are_left_out_and_tags_stay() -> None:
    assert canonical(training()) == {
        "kind": "train", "version": 2,
        "data": {"name": "digits", "n_train": 600, "n_validation": 200, "n_statistics": 100, "n_read": 300,
                 "seed": 100},
        "model": {"name": "vgg11_bn", "options": {"width": 0.25, "head": "linear"}},
        "optimizer": {"lr": 0.1}, "epochs": 7, "batch_size": 50,
        "seeds": {"init": 100, "order": 100, "augment": 100, "noise": 100},
    }  # fmt: skip
    assert canonical(Cosine()) == {"kind": "cosine"}
    assert canonical(Warmup("5it")) == {"kind": "warmup", "length": "5it"}
    assert canonical(A) == {"kind": "snapshot", "run": "train-0123abcd", "step": 84}


def test_a_default_written_out_changes_nothing() -> None:
    written = training(Constant(1.0), augment=False, precision="fp32", snapshots=(), start=None)
    assert identity(written) == identity(training())
    assert identity(training(Warmup("5it", after=Constant()))) == identity(training(Warmup("5it")))


def test_a_setting_added_later_keeps_old_hashes() -> None:
    class Old(Frozen):
        kind: str = "old"
        rate: float

    class New(Frozen):
        kind: str = "old"
        rate: float
        added: tuple[int, ...] = ()

    @dataclass(frozen=True)
    class Holder:
        inner: Frozen
        kind: str = "holder"

    assert identity(Old(rate=0.1)) == identity(New(rate=0.1))
    assert identity(Old(rate=0.1)) != identity(New(rate=0.1, added=(1,)))
    assert canonical(Holder(Old(rate=0.1))) == canonical(Holder(New(rate=0.1)))


CHANGES: list[dict[str, Any]] = [
    {"epochs": 8}, {"batch_size": 51}, {"augment": True}, {"precision": "bf16"}, {"snapshots": ("1ep",)},
    {"forks": ("1ep",)}, {"start": A}, {"start": B}, {"schedule": Cosine()}, {"schedule": Cosine(final=0.1)},
    {"schedule": LinearDecay()}, {"seeds": Seeds(init=1, order=100, augment=100, noise=100)},
    {"seeds": Seeds(init=100, order=1, augment=100, noise=100)},
    {"seeds": Seeds(init=100, order=100, augment=1, noise=100)},
    {"seeds": Seeds(init=100, order=100, augment=100, noise=1)},
    *({"optimizer": OptimizerSpec(**change)} for change in (
        {"lr": 0.2}, {"lr": 0.1, "name": "adam"}, {"lr": 0.1, "momentum": 0.8}, {"lr": 0.1, "weight_decay": 0.0})),
    *({"data": DATA.model_copy(update=change)} for change in (
        {"name": "synthetic"}, {"n_train": 601}, {"n_validation": 201}, {"n_statistics": 101}, {"n_read": 301},
        {"n_test": 10}, {"seed": 101}, {"resolution": 8}, {"source": "0123"})),
    *({"model": MODEL.model_copy(update=change)} for change in (
        {"name": "vgg13_bn"}, {"options": {"width": 0.25}}, {"source": "0123"})),
]  # fmt: skip


def test_every_changed_value_is_another_recipe() -> None:
    hashes = {identity(training(**change)) for change in [{}, *CHANGES]}
    assert len(hashes) == len(CHANGES) + 1


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_json_equal_and_with_the_same_hash(name: str) -> None:
    recipe = RECIPES[name]
    stored = ADAPTER.validate_json(json.dumps(recipe.model_dump(mode="json")))
    assert stored == recipe
    assert type(stored) is type(recipe)
    assert identity(stored) == identity(recipe)


def test_equal_recipes_have_equal_hashes_however_they_were_written() -> None:
    pairs = [
        (StepDecay(at=("1ep",), gamma=1), StepDecay(at=("1ep",), gamma=1.0)),
        (Constant(2), Constant(2.0)),
        (Restarts(first="1ep", final=0), Restarts(first="1ep", final=0.0)),
    ]
    for left, right in pairs:
        assert identity(training(left)) == identity(training(right))
        assert identity(ADAPTER.validate_json(training(left).model_dump_json())) == identity(training(right))
    listed = StepDecay(at=["1ep"])  # type: ignore[arg-type]
    assert identity(training(listed)) == identity(training(StepDecay(at=("1ep",))))
    assert identity(training(optimizer=OptimizerSpec(lr=1))) == identity(training(optimizer=OptimizerSpec(lr=1.0)))


def unknown_keys() -> list[tuple[str, dict[str, Any]]]:
    """A valid recipe with one key too many, at every depth."""
    places = {
        "recipe": (), "data": ("data",), "model": ("model",), "optimizer": ("optimizer",), "seeds": ("seeds",),
        "schedule": ("schedule",), "schedule in schedule": ("schedule", "after"),
        "schedule in schedule in schedule": ("schedule", "after", "first"), "start": ("start",),
    }  # fmt: skip
    nested = Warmup("5it", after=Constant().then(Cosine(), at="5ep"))
    found = []
    for name, path in places.items():
        stored = training(nested, start=A).model_dump(mode="json")
        inner = stored
        for key in path:
            inner = inner[key]
        inner["learningrate"] = 1
        found.append((name, stored))
    return found


@pytest.mark.parametrize(("place", "stored"), unknown_keys())
def test_unknown_keys_are_refused_at_every_depth(place: str, stored: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python(stored)
    assert any(error["loc"][-1] == "learningrate" for error in caught.value.errors()), place


@pytest.mark.parametrize("change", [{"kind": "trian"}, {"version": 99}, {"schedule": {"kind": "cosinus"}}])
def test_unknown_tags_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python({**training().model_dump(mode="json"), **change})


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError):
        training().epochs = 8  # type: ignore[misc]


def test_the_inputs_of_a_recipe_are_named_once_wherever_they_stand() -> None:
    assert inputs_of(training()) == ()
    assert inputs_of(training(start=A)) == ("train-0123abcd",)
    assert inputs_of(CURVE) == ("train-0123abcd", "train-4567abcd")
    assert inputs_of(RECIPES["surface"]) == ("train-0123abcd", "connect-89ababcd", "train-4567abcd")
    assert inputs_of(RECIPES["barriers"]) == ("train-0123abcd",)
    assert inputs_of(RECIPES["predict"]) == ("train-0123abcd", "train-4567abcd")


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "users_own_model.py"
    path.write_text("def build():\n    return 1\n")
    monkeypatch.delitem(sys.modules, "users_own_model", raising=False)
    return path


def test_a_users_function_is_known_by_its_file(users_module: Path) -> None:
    function = load_target("users_own_model:build")
    first = source_hash(function)
    assert first == source_hash(function)
    assert len(first) == 16
    users_module.write_text("def build():\n    return 2\n")
    second = source_hash(function)
    users_module.write_text("def build():\n    return 2\n\n\ndef other():\n    pass\n")
    assert len({first, second, source_hash(function)}) == 3
    users_module.write_text("def build():\n    return 1\n")
    assert source_hash(function) == first
    spec = MODEL.model_copy(update={"name": "users_own_model:build", "source": first})
    assert identity(training(model=spec)) != identity(training(model=spec.model_copy(update={"source": second})))


def test_a_function_without_a_file_is_refused() -> None:
    typed = ModuleType("typed")
    exec("def build(): return 1", typed.__dict__)
    for function in (len, typed.build):
        with pytest.raises(UsageError, match="no source file"):
            source_hash(function)

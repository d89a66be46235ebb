"""Names: what a wrapper added goes, what an author chose stays, on the model's side and on the checkpoint's."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from closerlook.errors import MismatchError
from closerlook.views import load_buffers
from closerlook.weights import WeightSpace, fitted, named, named_modules
from conftest import small_net


def compiled(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.compile's own imports
        return torch.compile(model, backend="eager")  # type: ignore[return-value]


def inner_wrapped(model: nn.Sequential) -> nn.Sequential:
    model.conv1, model.norm1 = compiled(model.conv1), nn.DataParallel(model.norm1)
    model.head = nn.DataParallel(compiled(model.head))
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": compiled,
    "DataParallel": nn.DataParallel,
    "DataParallel of compiled": lambda model: nn.DataParallel(compiled(model)),
    "compiled DataParallel": lambda model: compiled(nn.DataParallel(model)),
    "layers inside": inner_wrapped,  # type: ignore[dict-item]
    "weight average": AveragedModel,
    "activation checkpoints": checkpoint_wrapper,
}


def vector(seed: int) -> Tensor:
    return torch.cat([value.detach().flatten() for value in small_net(seed).parameters()])


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapped_model_is_the_model_inside(kind: str) -> None:
    wrapped, plain = WRAPPERS[kind](small_net(1)), small_net(0)
    space = WeightSpace(plain)
    assert WeightSpace(wrapped).names == space.names
    assert torch.equal(WeightSpace(wrapped).point(plain).vector, vector(0))
    for source in (wrapped, wrapped.state_dict()):
        if kind == "layers inside" and source is not wrapped:
            continue  # here `module.` stands inside, where it may be a true name: the model would know, a dict does not
        assert torch.equal(space.point(source).vector, vector(1))
        assert set(space.point(source).buffers) - {"n_averaged"} == set(space.point(plain).buffers)
    # Back into the wrapped model, under its own names.
    point = WeightSpace(wrapped).point(wrapped)
    wrapped.load_state_dict(WeightSpace(wrapped).state_dict(point))
    assert torch.equal(WeightSpace(wrapped).point(wrapped).vector, vector(1))
    load_buffers(wrapped, space.point(plain).buffers)
    assert torch.equal(space.point(wrapped).buffers["norm1.running_mean"], plain.norm1.running_mean)


class Module(nn.Module):
    """A network whose author called a layer ``module``."""

    def __init__(self, inner: nn.Module, beside: bool = False) -> None:
        super().__init__()
        self.module = inner
        if beside:
            self.head = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


TRUE_NAMES: dict[str, Callable[[], nn.Module]] = {
    "the only layer": lambda: Module(small_net()),
    "the only layer, twice": lambda: Module(Module(small_net())),
    "one layer of two": lambda: Module(small_net(), beside=True),
    "inside a layer": lambda: nn.Sequential(Module(small_net()), nn.Linear(10, 2)),
}


@pytest.mark.parametrize("kind", TRUE_NAMES)
@pytest.mark.parametrize("wrap", [None, nn.DataParallel, compiled], ids=["plain", "DataParallel", "compiled"])
def test_a_layer_called_module_keeps_its_name(kind: str, wrap: Callable[[nn.Module], nn.Module] | None) -> None:
    model = TRUE_NAMES[kind]()
    space = WeightSpace(model)
    assert space.names == tuple(name for name, _ in model.named_parameters())
    wrapped = model if wrap is None else wrap(model)
    assert WeightSpace(wrapped).names == space.names
    for source in (wrapped, wrapped.state_dict()):
        for target in (space, WeightSpace(wrapped)):
            point = target.point(source)
            assert torch.equal(point.vector, space.point(model).vector)
            assert point.buffers.keys() == space.point(model).buffers.keys()


@pytest.mark.parametrize("kind", WRAPPERS)
def test_layers_have_plain_names_too_and_wrappers_are_none(kind: str) -> None:
    model = small_net()
    expected = [name for name, _ in small_net().named_modules()]
    found = dict(named_modules(WRAPPERS[kind](model)))
    assert list(found) == expected
    assert all(type(found[name]).__name__ not in ("OptimizedModule", "DataParallel") for name in found)
    assert [name for name, _ in named_modules(Module(nn.Linear(2, 2)))] == ["", "module"]


def test_a_layer_under_two_names_has_the_first() -> None:
    layer = nn.Linear(2, 2)
    assert [name for name, _ in named_modules(nn.ModuleDict({"a": layer, "b": layer}))] == ["", "a"]


def test_a_class_of_the_same_name_that_is_no_wrapper_keeps_its_names() -> None:
    class DataParallel(Module):
        pass

    assert next(iter(named(DataParallel(small_net())).parameters)) == "module.conv1.weight"


@pytest.mark.parametrize(
    ("keys", "known", "expected"),
    [
        (["module.a.w", "module.b"], ["a.w", "b"], ["a.w", "b"]),
        (["module.a.w", "b"], ["a.w", "b"], ["module.a.w", "b"]),  # not on every key
        (["module.module.w"], ["module.w"], ["module.w"]),
        (["module.w"], ["module.w"], ["module.w"]),
        (["w"], ["module.w"], ["w"]),  # nothing is ever added
        (["_orig_mod.a._orig_mod.w"], ["a.w"], ["a.w"]),
        (["module._orig_mod.w", "module._orig_mod.b"], ["w", "b"], ["w", "b"]),
        (["_orig_mod.module.w"], ["w"], ["w"]),
        (["a._orig_mod.w"], ["a._orig_mod.w"], ["a._orig_mod.w"]),
        (["n_averaged", "module.w"], ["w"], ["w"]),
        (["modules.w"], ["w"], ["modules.w"]),
        ([], ["w"], []),
    ],
)
def test_only_prefixes_that_the_model_has_not_are_stripped(
    keys: list[str], known: list[str], expected: list[str]
) -> None:
    assert list(fitted(keys, known).values()) == expected


def test_two_keys_never_become_one_by_accident() -> None:
    with pytest.raises(MismatchError, match="missing"):
        WeightSpace(nn.Linear(2, 2)).point({"module.weight": torch.zeros(2, 2), "bias": torch.zeros(2)})

"""Matching features: the loss against its formula, layers of other shapes, hooks that go away."""

import copy
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import closerlook as cl
from closerlook.data import TensorBatches
from closerlook.errors import UsageError
from closerlook.training import TrainResult
from closerlook.training.checkpoint import StateFile
from closerlook.training.interventions import Intervention
from closerlook.training.interventions.features import similarities
from closerlook.training.loop import Tick
from untouched import everything, same


def batches(**settings: Any) -> TensorBatches:
    """30 drawn images in 4 batches, the last one smaller."""
    source = torch.Generator().manual_seed(0)
    images = torch.randn(30, 1, 8, 8, generator=source, dtype=torch.float64)
    return TensorBatches(images, torch.randint(0, 4, (30,), generator=source), 8, shuffle=True, **settings)


def student(seed: int = 0, inplace: bool = False) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = OrderedDict(
            flatten=nn.Flatten(), one=nn.Linear(64, 6), relu1=nn.ReLU(inplace), two=nn.Linear(6, 5),
            relu2=nn.ReLU(inplace), head=nn.Linear(5, 4),
        )  # fmt: skip
        return nn.Sequential(layers).double()


def teacher() -> nn.Module:
    """Maps in place of vectors; left in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        layers = OrderedDict(
            conv=nn.Conv2d(1, 3, 3), relu1=nn.ReLU(), norm=nn.BatchNorm2d(3), deep=nn.Conv2d(3, 2, 3), relu2=nn.ReLU(),
            flatten=nn.Flatten(), head=nn.Linear(32, 4),
        )  # fmt: skip
        return nn.Sequential(layers).double().train()


def train(*interventions: Intervention, model: nn.Module | None = None, **settings: Any) -> TrainResult:
    settings = {"lr": 0.1, "momentum": 0.9, "epochs": 2, "seed": 1, "loader": batches(), **settings}
    loader = settings.pop("loader")
    return cl.train(model or student(), loader, interventions=interventions, **settings)


def gram(activations: Tensor) -> Tensor:
    """Entry by entry, as the formula says."""
    rows = [row.reshape(-1) for row in activations]
    products = torch.stack([torch.stack([one.dot(two) for two in rows]) for one in rows])
    return products / products.square().sum(1, keepdim=True).sqrt()


def plain(pairs: dict[str, str], weight: float) -> Tensor:
    """What a PyTorch user would write: the weights after the training."""
    model, shown = student().train(), teacher().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = batches()

    def inside(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, layer in network.named_children():
            found[name] = x = layer(x)
        return found

    for epoch in range(2):
        loader.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            own = inside(model, x)
            with torch.no_grad():
                told = inside(shown, x)
            apart = sum((gram(own[one]) - gram(told[two])).square().sum() for one, two in pairs.items())
            (nn.functional.cross_entropy(own["head"], y) + weight * apart / len(x) ** 2).backward()
            optimizer.step()
    return cl.WeightSpace(model).point(model).vector


@pytest.mark.parametrize("pairs", [{"relu1": "relu1"}, {"one": "deep", "head": "relu2"}])
def test_trains_as_a_plain_loop(pairs: dict[str, str]) -> None:
    found = train(cl.match_features(teacher(), pairs, weight=20.0)).point.vector
    torch.testing.assert_close(found, plain(pairs, 20.0), rtol=1e-11, atol=1e-13)
    assert float((found - train().point.vector).abs().max()) > 1e-3


def test_wildcards_pair_layers_in_the_order_of_the_forward_pass() -> None:
    wild, named = (train(cl.match_features(teacher(), pairs, weight=20.0)).point.vector for pairs in (
        {"relu*": "relu*"}, {"relu1": "relu1", "relu2": "relu2"}))  # fmt: skip
    assert torch.equal(wild, named)


def test_the_matching_brings_similarities_together() -> None:
    x = batches().inputs
    goal = similarities(teacher().eval()[:2](x))  # 0 where no unit is active

    def apart(result: TrainResult) -> float:
        model = student()
        model.load_state_dict(cl.WeightSpace(model).state_dict(result.point))
        return (similarities(model[:3](x)) - goal).square().mean().item()

    matched = train(cl.match_features(teacher(), {"relu1": "relu1"}, weight=100.0), epochs=10)
    assert apart(matched) < 0.5 * apart(train(epochs=10))


def test_a_copy_of_the_teacher_has_nothing_to_match() -> None:
    one = {"loader": [next(iter(batches()))], "epochs": 1}
    found = train(cl.match_features(student(), {"*": "*"}, weight=1e6), **one)
    torch.testing.assert_close(found.point.vector, train(**one).point.vector, rtol=0, atol=1e-9)  # 1e6 roundings
    assert found.history[0]["loss"] == train(**one).history[0]["loss"]


def test_without_weight_it_is_a_plain_training_to_the_last_bit() -> None:
    idle = train(cl.match_features(teacher(), {"one": "conv"}, weight=0.0))
    assert torch.equal(idle.point.vector, train().point.vector)


def test_what_writes_into_activations_does_not_change_them() -> None:
    """The layer before a ReLU that works in place is read as it was."""
    chosen = cl.match_features(teacher(), {"one": "conv"}, weight=20.0)
    assert torch.equal(*(train(chosen, model=student(inplace=each)).point.vector for each in (True, False)))


def test_similarities_do_not_depend_on_scale_rotation_or_type() -> None:
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 4, generator=source, dtype=torch.float64)
    turned = 3 * rows @ torch.linalg.qr(torch.randn(4, 4, generator=source, dtype=torch.float64))[0]
    torch.testing.assert_close(similarities(rows), similarities(turned), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(similarities(rows), gram(rows), rtol=1e-12, atol=1e-13)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarities(rows.bfloat16()), similarities(rows.bfloat16().float()))
    assert bool((similarities(torch.zeros(3, 4)) == 0).all())  # dead layers


def test_composes_with_distillation() -> None:
    shown, one = teacher(), {"loader": [next(iter(batches()))], "epochs": 1}
    chosen = cl.match_features(shown, {"relu1": "relu1"}, weight=20.0), cl.distil(shown, mixing=0.5)
    both, matched, distilled, bare = (
        train(*each, **one).history[0]["loss"] for each in (chosen, chosen[:1], chosen[1:], ())
    )
    # The distillation comes last and takes the matched loss for the one of the labels.
    assert both - distilled == pytest.approx(0.5 * (matched - bare), rel=1e-10)


def test_hooks_leave_nothing_behind() -> None:
    shown, model = teacher(), student()
    before, seen = everything(shown), list[nn.Module]()

    def look(network: nn.Module, batch: Any) -> cl.Output:
        seen.append(network)
        return cl.batches.classification(network, batch)

    chosen = cl.match_features(shown, {"*": "*relu*", "relu?": "conv"}, weight=20.0)
    with pytest.raises(UsageError, match="match other numbers of layers"):
        train(chosen, model=model, batch_fn=look)
    train(cl.match_features(shown, {"relu*": "relu*"}, weight=20.0), model=model, batch_fn=look)
    assert same(everything(shown), before)
    assert not any(module._forward_hooks for network in seen for module in network.modules())


class StoppedError(Exception):
    """What a test raises in place of a kill."""


def test_a_stopped_run_leaves_the_bytes_of_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StateFile, "due", lambda self: True)

    def stop(tick: Tick) -> None:
        if tick.step == 3:
            raise StoppedError

    def run(name: str, *observers: Any) -> None:
        chosen = cl.match_features(copy.deepcopy(teacher()), {"relu1": "relu1"}, weight=20.0)
        train(chosen, out=tmp_path / name, observers=observers)

    run("whole")
    with pytest.raises(StoppedError):
        run("parts", stop)
    run("parts")
    left = [{path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*")} for name in ("whole", "parts")]
    assert left[0] == left[1]
    with pytest.raises(UsageError, match="another interventions"):
        train(cl.match_features(teacher(), {"relu1": "relu1"}, weight=30.0), out=tmp_path / "whole")


@pytest.mark.parametrize(
    ("layers", "weight", "message"),
    [
        ({"relu1": "relu1"}, -1.0, "finite weight of at least 0, not -1.0"),
        ({"relu1": "relu1"}, math.nan, "not nan"),
        ({}, 1.0, "a mapping from the student's to the teacher's"),
        ([("relu1", "relu1")], 1.0, "a mapping from the student's to the teacher's"),
        ({"relv1": "relu1"}, 1.0, "no layer matches 'relv1'; did you mean relu1"),
        ({"relu1": "relv1"}, 1.0, "no layer matches 'relv1'; did you mean relu1"),
        ({"relu*": "relu1"}, 1.0, r"match other numbers of layers: relu1, relu2 and relu1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    layers: Any, weight: float, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        train(cl.match_features(teacher(), layers, weight=weight), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

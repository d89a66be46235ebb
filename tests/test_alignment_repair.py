"""REPAIR against statistics that are measured anew, and the barriers before and after."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import closerlook as cl
from closerlook.alignment import repairable, repaired
from closerlook.alignment.moments import Moments
from closerlook.errors import LayerError, UsageError
from closerlook.models import build
from conftest import digit_batches, small_net
from untouched import everything, same

DATA = digit_batches(150, 60, dtype=torch.float64)


def conv_net(seed: int) -> nn.Module:
    return build("shallow_cnn", width=0.2, in_channels=1, image_size=8, init="he", seed=seed).double()


def with_biases(make: Any, seed: int) -> nn.Module:
    """A network whose biases are not zero, so that channels have means of their own."""
    model = make(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for value in model.parameters():
            if value.ndim == 1:
                value.normal_(0.3, 0.2)
    return model


def mlp(seed: int) -> nn.Module:
    return build("mlp", in_features=64, hidden=(12, 9), seed=seed).double()


def channels(model: nn.Module) -> dict[str, Tensor]:
    """All outputs of every convolution and linear layer, channels first."""
    rows = cl.activations(model, DATA, ["*c*"], conv="positions").rows
    return {name: values.T for name, values in rows.items()}


@pytest.mark.parametrize("make", [conv_net, mlp])
@pytest.mark.parametrize("t", [0.25, 0.5])
def test_means_and_spreads_are_those_of_the_ends_mixed(make: Any, t: float) -> None:
    one, two = with_biases(make, 1), with_biases(make, 2)
    point = cl.repair(one, one, two, t, DATA)
    first, second, found = (channels(net) for net in (one, two, cl.loaded(one, point)))
    last = list(found)[-1]
    for name, values in found.items():
        if name == last:
            continue
        for statistic in (torch.Tensor.mean, lambda value, dim: value.std(dim, correction=0)):
            wanted = (1 - t) * statistic(first[name], 1) + t * statistic(second[name], 1)
            torch.testing.assert_close(statistic(values, 1), wanted, rtol=0, atol=1e-10)
    straight = cl.loaded(one, cl.line(one, two).at(t))
    assert not torch.allclose(channels(straight)[last], found[last])
    for kind in ("weight", "bias"):  # the output layer stays
        name = f"{last}.{kind}"
        assert torch.equal(cl.loaded(one, point).get_parameter(name), straight.get_parameter(name))


def test_the_ends_are_the_networks() -> None:
    one, two = with_biases(mlp, 1), with_biases(mlp, 2)
    points = list(repaired(one, one, two, [0.0, 1.0], DATA))
    for net, point in zip((one, two), points, strict=True):
        assert torch.equal(point.vector, cl.WeightSpace(net).point(net).vector)


def test_a_network_and_itself_need_no_repair() -> None:
    one = with_biases(conv_net, 3)
    point = cl.repair(one, one, one, 0.5, DATA)
    torch.testing.assert_close(point.vector, cl.WeightSpace(one).point(one).vector, rtol=0, atol=1e-12)


def test_a_channel_that_never_changes_keeps_its_scale_and_gets_the_mean() -> None:
    one, two = with_biases(mlp, 1), with_biases(mlp, 2)
    with torch.no_grad():
        for net in (one, two):
            net.fc1.weight[3] = 0.0
    point = cl.repair(one, one, two, 0.5, DATA)
    found = cl.loaded(one, point)
    assert torch.equal(found.fc1.weight[3], one.fc1.weight[3])
    wanted = (one.fc1.bias[3] + two.fc1.bias[3]) / 2
    torch.testing.assert_close(found.fc1.bias[3], wanted, rtol=0, atol=1e-12)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.two(self.one(x.flatten(1)).relu()).relu()).relu())


class Shared(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(8, 8)
        self.other.weight = self.two.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.other(self.two(self.one(x.flatten(1)).relu()).relu()).relu())


class Free(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(8, 64)), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x.flatten(1) @ self.weight.T).relu())


def without_bias() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8, bias=False), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (small_net, UsageError, "estimating its statistics anew is its REPAIR"),
        (Twice, LayerError, "two is used more than once"),
        (Shared, LayerError, "two is used more than once"),
        (without_bias, LayerError, "1 has no bias"),
        (Free, LayerError, "weight makes hidden units outside"),
    ],
)
def test_what_cannot_be_repaired_is_refused(make: Any, error: type[Exception], words: str) -> None:
    model = make()
    with pytest.raises(error, match=words):
        cl.repair(model, model, make(), 0.5, digit_batches(8, 8))


@pytest.mark.parametrize(("make", "words"), [(without_bias, "1 has no bias"), (Free, "weight makes hidden units")])
def test_what_cannot_be_repaired_is_still_aligned(make: Any, words: str) -> None:
    one, two = make(), make()
    data = [(x, y % 2) for x, y in digit_batches(64, 32)]
    before = everything(one)
    reason = repairable(one, data)
    assert same(before, everything(one))
    assert reason is not None
    assert reason.startswith(words)
    found = cl.aligned_barriers(one, one, two, data, points=3)
    assert (list(found.profiles), found.not_repaired) == (["raw", "refreshed", "aligned"], reason)
    wanted = cl.barrier(one, one, found.alignment.point, data, points=3)
    assert float(found.barrier("aligned")) == float(wanted)
    assert found.to_dict()["not_repaired"] == reason
    assert str(found).endswith(f"not repaired: {reason}")
    with pytest.raises(UsageError, match=f"no line 'repaired'.*{words}"):
        found.barrier()


def test_what_can_be_repaired_gives_no_reason() -> None:
    found = cl.aligned_barriers(mlp(1), mlp(1), mlp(2), DATA, points=2)
    assert repairable(mlp(1), DATA) is None
    assert found.to_dict()["not_repaired"] is None
    assert "not repaired" not in str(found)


@pytest.mark.parametrize("value", [0.1, 0.7])
@pytest.mark.parametrize("sizes", [(1000,), (7, 100, 33), (50,) * 40])
def test_rounding_is_no_variance(value: float, sizes: tuple[int, ...]) -> None:
    found = Moments()
    for size in sizes:
        constant = torch.full((2, size), value, dtype=torch.float64)
        found.add(constant, 0.3 * constant)
    assert found.std.tolist() == [0.0] * 4
    assert found.correlations.tolist() == [[0.0] * 2] * 2


def test_a_small_variance_is_one() -> None:
    found, signs = Moments(), torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(500)
    spread = 2.0**-40
    found.add((1 + spread * signs)[None])
    assert found.std.item() == pytest.approx(spread, rel=1e-3)


def test_a_layer_that_is_constant_halfway_keeps_its_scale() -> None:
    one, two = mlp(1), mlp(1)
    with torch.no_grad():
        two.fc1.weight.neg_()  # halfway the weights are 0, and what is left are the biases
        for net in (one, two):
            net.fc1.bias.copy_(torch.linspace(0.1, 0.7, 12))
    found = cl.loaded(one, cl.repair(one, one, two, 0.5, DATA))
    assert torch.equal(found.fc1.weight, torch.zeros_like(found.fc1.weight))
    assert torch.equal(found.fc2.weight, one.fc2.weight)


def test_everything_is_left_as_it_was() -> None:
    model, other = mlp(1), mlp(2)
    model.fc1.train(False)
    before = everything(model), everything(other)
    cl.aligned_barriers(model, model, other, DATA, points=3)
    assert same(before[0], everything(model))
    assert same(before[1], everything(other))


def test_barriers_without_batch_norm() -> None:
    one, two = with_biases(mlp, 1), with_biases(mlp, 2)
    found = cl.aligned_barriers(one, one, two, {"train": DATA[:2], "test": DATA[2:]}, points=5, stats_loader=DATA)
    assert list(found.profiles) == ["raw", "refreshed", "aligned", "repaired"]
    assert found.profiles["raw"] is found.profiles["refreshed"]
    for name, b in (("raw", two), ("aligned", found.alignment.point)):
        wanted = cl.barrier(one, one, b, DATA[:2], points=5)
        assert float(found.barrier(name)) == float(wanted)
    middle = cl.loaded(one, cl.repair(one, one, found.alignment.point, 0.5, DATA))
    read = found.profiles["repaired"].metric("test", "loss")[2]
    assert read == pytest.approx(cl.evaluate(middle, DATA[2:]).loss, abs=1e-12)
    ends = [found.profiles[name].metric("train", "loss")[[0, -1]] for name in ("raw", "repaired")]
    assert np.allclose(ends[0], ends[1], atol=1e-12)  # a permuted network is the same function


def test_barriers_with_batch_norm() -> None:
    one, two = small_net(1), small_net(2)
    data = digit_batches(64, 32)
    found = cl.aligned_barriers(one, one, two, data, "activations", points=3)
    policies = [each.batch_stats for each in found.profiles.values()]
    assert policies == ["interpolate", "recompute", "interpolate", "recompute"]
    for name, policy in (("aligned", "interpolate"), ("repaired", "recompute")):
        wanted = cl.barrier(one, one, found.alignment.point, data, points=3, batch_stats=policy)
        assert float(found.barrier(name)) == float(wanted)
    frame = found.to_frame()
    assert frame.groupby("line").size().to_dict() == dict.fromkeys(found.profiles, 2)
    stored = found.to_dict()
    assert stored["barriers"][0]["barrier"] == float(found.barrier("raw"))
    assert all(words in str(found) for words in ("hidden units", "repaired", "loss"))
    assert [line.get_label() for line in found.plot().get_lines()][:1] == ["raw"]


def test_barriers_need_training_images_and_two_ends() -> None:
    model = mlp(0)
    with pytest.raises(UsageError, match="stats_loader"):
        cl.aligned_barriers(model, model, mlp(1), {"test": DATA})
    with pytest.raises(UsageError, match="at least two points"):
        cl.aligned_barriers(model, model, mlp(1), DATA, points=1)

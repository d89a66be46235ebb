"""Metrics along curves, against fresh networks that hold the weights, and barriers on profiles made by hand."""

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

import closerlook as cl
from closerlook.batches import Output, classification
from closerlook.errors import LoaderError, MismatchError, UsageError
from closerlook.evaluation import batch_norms
from closerlook.landscape.reader import BatchStats
from conftest import Batch, digit_batches, small_net

# Losses of size 2 in float64.
CLOSE = 1e-10
EXACT = 1e-12
TRAIN = digit_batches(80, 32, dtype=torch.float64)
TEST = digit_batches(40, 16, start=500, dtype=torch.float64)
POLICIES: list[BatchStats] = ["recompute", "reference", "interpolate", "keep"]


def flat(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().reshape(-1) for value in model.parameters()])


def network(seed: int) -> nn.Sequential:
    return small_net(seed).double()


def with_weights(vector: Tensor, buffers_of: nn.Module) -> nn.Module:
    """A network of its own at these weights, with another one's buffers."""
    model = copy.deepcopy(buffers_of)
    vector_to_parameters(vector, model.parameters())
    return model


def with_statistics(model: nn.Module, batches: list[Batch], unbiased: bool) -> nn.Module:
    """The network with statistics of all batches, from their activations kept in memory."""
    seen: dict[nn.Module, list[Tensor]] = {norm: [] for norm in batch_norms(model)}
    watched = copy.deepcopy(model).train()
    for norm, kept in zip(batch_norms(watched), seen.values(), strict=True):
        norm.register_forward_hook(lambda _, inputs, __, kept=kept: kept.append(inputs[0].transpose(0, 1).flatten(1)))
    with torch.no_grad():
        for inputs, _ in batches:
            watched(inputs)
    for norm, kept in seen.items():
        whole, counts = torch.cat(kept, 1), [part.shape[1] for part in kept]
        norm.running_mean = whole.mean(1)
        weighted = sum(n * part.var(1) for n, part in zip(counts, kept, strict=True)) / sum(counts)
        norm.running_var = weighted if unbiased else whole.var(1, correction=0)
    return model


def expected_network(policy: BatchStats, t: float, w: Tensor, a: nn.Module, b: nn.Module, own: nn.Module) -> nn.Module:
    model = with_weights(w, own)
    if policy in ("recompute", "reference"):
        return with_statistics(model, TRAIN, unbiased=policy == "reference")
    if policy == "interpolate":
        for buffer, first, last in zip(model.buffers(), a.buffers(), b.buffers(), strict=True):
            buffer.copy_((1 - t) * first + t * last)
    return model


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", ["line", "polychain", "bezier"])
def test_each_point_is_a_network_with_those_weights(kind: str, policy: BatchStats) -> None:
    own, a, b, bend = (network(seed) for seed in range(4))
    make = {"line": lambda: cl.line(a, b), "polychain": lambda: cl.polychain([a, bend, b])}
    curve = make.get(kind, lambda: cl.bezier([a, bend, b]))()
    t = [0.0, 0.3, 0.5, 0.9, 1.0]
    found = cl.profile(own, curve, {"train": TRAIN, "test": TEST}, points=t, batch_stats=policy)
    for number, value in enumerate(t):
        model = expected_network(policy, value, curve.at(value).vector, a, b, own)
        for split, batches in (("train", TRAIN), ("test", TEST)):
            read = cl.evaluate(model, batches)
            assert found.metric(split, "loss")[number] == pytest.approx(read.loss, abs=CLOSE)
            assert found.metric(split, "accuracy")[number] == read.accuracy
            assert found.metric(split, "error")[number] == 1 - read.accuracy
    # Not a constant: neighbours differ by far more than rounding.
    assert np.abs(np.diff(found.metric("test", "loss"))).min() > 1e-3
    assert found.batch_stats == policy
    assert found.n == {"train": 80, "test": 40}
    assert found.dtype == "float64"
    assert found.kind == kind


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_ends_give_the_end_networks_own_numbers_bit_for_bit(memory_format: torch.memory_format) -> None:
    own, a, b = (small_net(seed).to(memory_format=memory_format) for seed in range(3))
    batches = digit_batches()
    seen: list[tuple[Tensor, Tensor]] = []

    def batch_fn(model: nn.Module, batch: Batch) -> Output:
        output = classification(model, batch)
        seen.append((flat(model), output.outputs))
        return output

    settings: Any = {"batch_stats": "interpolate", "batch_fn": batch_fn, "memory_format": memory_format}
    found = cl.profile(own, cl.line(a, b), batches, points=3, **settings)
    # After the probe three points, then the two ends with their own buffers, of three batches each.
    first, last = seen[-15], seen[-9]
    for (weights, logits), end in ((first, a), (last, b)):
        assert torch.equal(weights, flat(end))
        with torch.inference_mode():
            assert torch.equal(logits, end.eval()(batches[0][0]))
    for number, end in ((0, a), (2, b)):
        losses = cl.evaluate(end, batches).losses
        assert found.metric("train", "loss")[number] == np.mean(losses)
        assert found.ends[number // 2]["train_loss"] == np.mean(losses)


def test_the_ends_are_also_read_with_their_own_buffers() -> None:
    own, a, b = (network(seed) for seed in range(3))
    found = cl.profile(own, cl.line(a, b), {"train": TRAIN, "test": TEST}, points=3)
    for end, model in zip(found.ends, (a, b), strict=True):
        read = cl.evaluate(model, TEST)
        assert end["test_loss"] == pytest.approx(read.loss, abs=EXACT)
        assert end["test_accuracy"] == read.accuracy
    # These networks came with statistics of no data at all: the profile shows others.
    assert abs(found.metric("test", "loss")[0] - found.ends[0]["test_loss"]) > 0.01
    bare = cl.profile(own, cl.line(flat(a), flat(b)), {"train": TRAIN}, points=3)
    assert bare.ends == ({}, {})


def test_statistics_of_a_diverged_model_do_not_survive() -> None:
    own, a, b = (network(seed) for seed in range(3))
    good = cl.profile(own, cl.line(a, b), TRAIN, points=3)
    for broken in (own, a, b):
        broken.norm1.running_mean.fill_(math.nan)
        broken.norm2.running_var.fill_(math.nan)
    found = cl.profile(own, cl.line(a, b), TRAIN, points=3)
    assert np.array_equal(found.metric("train", "loss"), good.metric("train", "loss"))
    assert math.isnan(own.norm1.running_mean[0])  # the caller's model came back as it was


class Counted(list):
    """A loader that counts its passes."""

    passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return super().__iter__()


def test_there_is_a_pass_for_statistics_only_where_there_is_batch_norm() -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double() for _ in range(3)]
    for policy in POLICIES:
        source = Counted(TEST)
        found = cl.profile(models[0], cl.line(*models[1:]), TRAIN, points=5, stats_loader=source, batch_stats=policy)
        assert (found.evaluations, source.passes) == (5 * 80, 0)
        cl.profile(models[0], cl.line(*models[1:]), {"test": TRAIN}, points=2, batch_stats=policy)  # none is asked for
    for policy, passes in zip(POLICIES, (5, 5, 0, 0), strict=True):
        path = cl.line(network(1), network(2))
        found = cl.profile(network(0), path, TRAIN, points=5, stats_loader=TEST, batch_stats=policy)
        # Every point, and the two ends with their own buffers; statistics once a point, from their own images.
        assert found.evaluations == 7 * 80 + passes * 40


def test_statistics_come_from_their_own_images() -> None:
    own, a, b = (network(seed) for seed in range(3))
    found = cl.profile(own, cl.line(a, b), {"test": TEST}, points=[0.4], stats_loader=TRAIN)
    expected = with_statistics(with_weights(cl.line(a, b).at(0.4).vector, own), TRAIN, unbiased=False)
    assert found.metric("test", "loss")[0] == pytest.approx(cl.evaluate(expected, TEST).loss, abs=CLOSE)


def test_a_path_in_low_precision_is_not_constant() -> None:
    own, a, b = (small_net(seed) for seed in range(3))
    batches, t = digit_batches(), np.linspace(0, 1, 5)
    with torch.autocast("cpu", torch.bfloat16):  # the caller may be in a region of their own
        inside = cl.profile(own, cl.line(a, b), batches, points=t, batch_stats="keep", autocast=torch.bfloat16)
    found = cl.profile(own, cl.line(a, b), batches, points=t, batch_stats="keep", autocast=torch.bfloat16)
    for number, value in enumerate(t):
        model = with_weights(cl.line(a, b).at(value).vector, own)
        assert found.metric("train", "loss")[number] == cl.evaluate(model, batches, autocast=torch.bfloat16).loss
    assert np.array_equal(inside.metric("train", "loss"), found.metric("train", "loss"))
    assert len(set(found.metric("train", "loss"))) == 5


def test_tied_weights_move_together() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(10, 10, bias=False)
            self.second = nn.Linear(10, 10, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(x)))

    own, a, b = (Tied().double() for _ in range(3))
    batches = [
        (torch.randn(12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 10)
    ]
    found = cl.profile(own, cl.line(a, b), batches, points=3)
    for number, weight in enumerate((a.first.weight, (a.first.weight + b.first.weight) / 2, b.first.weight)):
        logits = torch.tanh(batches[0][0] @ weight.T) @ weight.T
        expected = nn.functional.cross_entropy(logits, batches[0][1]).item()
        assert found.metric("train", "loss")[number] == pytest.approx(expected, abs=CLOSE)


def bowl(centre: Tensor, width: Tensor) -> Any:
    """A batch function whose loss is a known function of the weights: sum_i k_i (w_i - c_i)^2 / 2."""

    def batch_fn(model: nn.Module, batch: Batch) -> Output:
        w = torch.cat([value.reshape(-1) for value in model.parameters()])
        return Output((width * (w - centre) ** 2).sum().div(2).expand(len(batch[0])), None)

    return batch_fn


def test_a_known_function_of_the_weights_comes_out_at_every_t() -> None:
    model = nn.Linear(3, 2).double()
    source = torch.Generator().manual_seed(0)
    centre, width, *points = torch.rand(6, 8, generator=source, dtype=torch.float64)
    for curve in (cl.line(*points[:2]), cl.polychain(points), cl.bezier(points)):
        found = cl.profile(model, curve, TEST, points=13, batch_fn=bowl(centre, width))
        for number, t in enumerate(np.linspace(0, 1, 13)):
            expected = (width * (curve.at(t).vector - centre) ** 2).sum() / 2
            assert found.metric("train", "loss")[number] == pytest.approx(expected.item(), abs=EXACT)
        assert list(found.values) == ["train_loss"]


def test_a_profile_is_stored_and_read_again() -> None:
    own, a, b = (network(seed) for seed in range(3))
    found = cl.profile(own, cl.line(a, b), {"train": TRAIN, "test": TEST}, points=4)
    frame = found.to_frame()
    assert list(frame.columns) == [
        "t", "distance", "train_loss", "train_accuracy", "train_error", "test_loss", "test_accuracy", "test_error"
    ]  # fmt: skip
    length = float((flat(a) - flat(b)).norm())
    assert np.allclose(frame["distance"], np.linspace(0, length, 4), rtol=0, atol=EXACT)
    stored = json.loads(json.dumps(found.to_dict()))
    again = cl.Profile.from_dict(stored)
    assert again.to_frame().equals(frame)
    assert again.to_dict() == stored
    assert again.barrier("test") == found.barrier("test")
    axes = found.plot(split="test", metric="accuracy")
    drawn = axes.get_lines()[0]
    assert np.array_equal(drawn.get_ydata(), found.metric("test", "accuracy"))


def test_only_the_named_parameters_move() -> None:
    own, a, b = (network(seed) for seed in range(3))
    space = cl.WeightSpace(own, "head.*")
    found = cl.profile(
        own, cl.line(space.point(a), space.point(b)), TEST, points=3, params="head.*", batch_stats="keep"
    )
    for number, t in enumerate((0, 0.5, 1)):
        model = copy.deepcopy(own)
        model.head.weight.data = (1 - t) * a.head.weight.data + t * b.head.weight.data
        model.head.bias.data = (1 - t) * a.head.bias.data + t * b.head.bias.data
        assert found.metric("train", "loss")[number] == pytest.approx(cl.evaluate(model, TEST).loss, abs=CLOSE)


def test_what_cannot_be_profiled_is_refused_with_a_reason() -> None:
    own, a, b = (network(seed) for seed in range(3))
    path = cl.line(a, b)
    bare = cl.line(flat(a), flat(b))
    refused: list[tuple[cl.Subspace, Any, dict[str, Any], type[Exception], str]] = [
        (cl.plane(a, b, own), TRAIN, {}, UsageError, "a plane has no t; use surface for planes"),
        (path, {"test": TEST}, {}, UsageError, "batch norm.*pass stats_loader.* or a split called 'train'"),
        (path, TRAIN, {"batch_stats": "new"}, UsageError, "unknown batch_stats 'new'; choose one of recompute"),
        (path, {}, {}, UsageError, "no split to read"),
        (path, {"test": iter(TEST)}, {"stats_loader": TRAIN}, LoaderError, "test is a one-shot iterator"),
        (path, {"test": TEST}, {"stats_loader": iter(TRAIN)}, LoaderError, "stats_loader is a one-shot iterator"),
        (path, {"test": []}, {"stats_loader": TRAIN}, LoaderError, "test gave no batch"),
        (path, {"test": TEST}, {"stats_loader": []}, LoaderError, "stats_loader gave no batch"),
        (bare, TRAIN, {"batch_stats": "interpolate"}, UsageError, "point 0, 1 is a bare vector"),
        (cl.line(flat(a).float(), flat(b).float()), TRAIN, {}, MismatchError, "weights are torch.float32, the model"),
        (cl.line(flat(a)[1:], flat(b)[1:]), TRAIN, {}, MismatchError, "851 entries for a space of 852"),
        (path, TRAIN, {"points": [0.5, 1.5]}, UsageError, r"t in \[0, 1\]; got 0.5 to 1.5"),
        (path, TRAIN, {"points": 0}, UsageError, "there is no point to read"),
        (path, TRAIN, {"points": -3}, UsageError, "there is no point to read"),
        (path, TRAIN, {"points": []}, UsageError, "there is no point to read"),
    ]
    for curve, splits, options, error, message in refused:
        with pytest.raises(error, match=message):
            cl.profile(own, curve, splits, **options)
    found = cl.profile(own, path, TRAIN, points=2)
    with pytest.raises(UsageError, match="no loss on 'test' here; there is train_loss, train_accuracy, train_error"):
        found.barrier(split="test")
    with pytest.raises(UsageError, match="no f1 on 'train' here"):
        found.metric("train", "f1")


# Barriers ------------------------------------------------------------------------------------------------------------


def made_by_hand(t: list[float], **values: list[float]) -> cl.Profile:
    arrays = {name: np.array(value) for name, value in values.items()}
    return cl.Profile(np.array(t), arrays, np.zeros(len(t)), {"train": 10}, ({}, {}), "line", "recompute", "float32")


HILL = made_by_hand(
    [0.0, 0.25, 0.5, 0.75, 1.0],
    train_loss=[1.0, 2.0, 2.6, 3.0, 2.0],
    train_accuracy=[0.9, 0.7, 0.6, 0.4, 0.5],
    train_error=[0.1, 0.3, 0.4, 0.6, 0.5],
    test_loss=[3.0, 2.0, 1.0, 0.5, 2.0],
)


@pytest.mark.parametrize(
    ("metric", "definition", "value", "t"),
    [
        ("loss", "above_ends", 1.0, 0.75),  # 3.0 - max(1, 2)
        ("loss", "above_mean_of_ends", 1.5, 0.75),  # 3.0 - 1.5
        ("loss", "above_line", 1.25, 0.75),  # 3.0 - 1.75; at 0.5 it is 2.6 - 1.5 = 1.1
        ("error", "above_ends", 0.1, 0.75),
        ("accuracy", "above_ends", 0.1, 0.75),  # the dip below the worse end
        ("accuracy", "above_mean_of_ends", 0.3, 0.75),
        ("accuracy", "above_line", 0.2, 0.75),  # 0.6 - 0.4
    ],
)
def test_a_barrier_by_hand(metric: str, definition: Any, value: float, t: float) -> None:
    found = HILL.barrier("train", metric, definition)
    assert found.value == pytest.approx(value, abs=EXACT)
    assert float(found) == found.value
    assert found.t == t
    assert (found.metric, found.split, found.definition) == (metric, "train", definition)
    assert (found.points, found.batch_stats, found.dtype) == (5, "recompute", "float32")
    assert cl.Barrier(**found.to_dict()) == found


def test_definitions_differ_in_where_the_barrier_stands() -> None:
    slope = made_by_hand([0.0, 0.5, 1.0], train_loss=[0.0, 3.0, 4.0])
    assert (slope.barrier().value, slope.barrier().t) == (0.0, 1.0)
    above_line = slope.barrier(definition="above_line")
    assert (above_line.value, above_line.t) == (1.0, 0.5)
    above_mean = slope.barrier(definition="above_mean_of_ends")
    assert (above_mean.value, above_mean.t) == (2.0, 1.0)


def test_a_valley_has_no_barrier() -> None:
    assert HILL.barrier("test").value == 0.0
    assert HILL.barrier("test", definition="above_line").value == 0.0
    assert HILL.barrier("test", definition="above_mean_of_ends").value == pytest.approx(0.5, abs=EXACT)


def test_a_loss_that_is_no_number_is_not_hidden() -> None:
    assert math.isnan(made_by_hand([0.0, 0.5, 1.0], train_loss=[1.0, math.nan, 1.0]).barrier().value)


def test_a_barrier_needs_both_ends_and_a_known_definition() -> None:
    for t in ([0.1, 0.5, 1.0], [0.0, 0.5, 0.9]):
        with pytest.raises(UsageError, match="from t = 0 to t = 1"):
            made_by_hand(t, train_loss=[1.0, 2.0, 1.0]).barrier()
    with pytest.raises(UsageError, match="unknown barrier 'highest'; choose one of above_ends, above_mean_of_ends"):
        HILL.barrier(definition="highest")  # type: ignore[arg-type]

"""Averages and ensembles of points of a path, against plain means, plain statistics and plain probabilities."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

import closerlook as cl
from closerlook.errors import LoaderError, MismatchError, UsageError
from conftest import digit_batches, small_net

# Weights of size 1 and logits of size 10 in float64: rounding is far below 1e-12, and 1e-10 after two layers.
EXACT, CLOSE = 1e-12, 1e-10
STATISTICS = digit_batches(64, 64, dtype=torch.float64)  # one batch: its own statistics are those of train mode
TEST = digit_batches(90, 32, start=100, dtype=torch.float64)
NETS = [small_net(seed).double() for seed in (1, 2, 3)]
PATHS: dict[str, cl.Subspace] = {
    "line": cl.line(NETS[0], NETS[1]),
    "polychain": cl.polychain(NETS),
    "bezier": cl.bezier(NETS),
}


@pytest.mark.parametrize("kind", PATHS)
@given(ts=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_the_average_is_the_mean_of_the_vectors(kind: str, ts: list[float]) -> None:
    path = PATHS[kind]
    found = path.average(ts)
    mean = torch.stack([path.at(t).vector for t in ts]).mean(0)
    assert torch.allclose(found.vector, mean, rtol=0, atol=EXACT)
    assert not found.buffers


def test_on_planes_and_simplices_too() -> None:
    coords = [[0.2, 0.3, 0.5], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.4, 0.6, 0.0]]
    mixed, flat = cl.simplex(NETS), cl.plane(*NETS)
    for path, rows in ((mixed, coords), (flat, [row[:2] for row in coords])):
        mean = torch.stack([path.at(row).vector for row in rows]).mean(0)
        assert torch.allclose(path.average(rows).vector, mean, rtol=0, atol=EXACT)
    corners = mixed.average(np.eye(3)).vector
    assert torch.allclose(corners, sum(point.vector for point in mixed.points) / 3, rtol=0, atol=EXACT)


def test_no_point_has_no_average() -> None:
    with pytest.raises(UsageError, match="no point to average"):
        PATHS["bezier"].average([])
    with pytest.raises(UsageError, match=r"t in \[0, 1\]"):
        PATHS["bezier"].average([0.5, 1.5])


def in_train_mode(point: cl.Point, inputs: Tensor) -> Tensor:
    """Outputs of one batch that is normalised by itself."""
    net = small_net().double()
    weights = {name: value for name, value in cl.WeightSpace(net).state_dict(point).items()}
    return functional_call(net.train(), weights, (inputs,))


def test_statistics_are_those_of_the_weights_and_not_of_the_model() -> None:
    model, point = small_net().double().train(), PATHS["polychain"].average([0.1, 0.4, 0.8])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = cl.with_statistics(model, point, STATISTICS)
    inputs = STATISTICS[0][0]
    assert torch.allclose(made(inputs), in_train_mode(point, inputs), rtol=0, atol=CLOSE)
    assert not torch.allclose(cl.loaded(model, point).eval()(inputs), made(inputs), atol=0.1)
    assert model.training
    assert not made.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # What a profile reads at one point is what the network there gives.
    read = cl.profile(model, PATHS["bezier"], {"test": TEST}, points=[0.3], stats_loader=STATISTICS)
    there = cl.with_statistics(model, PATHS["bezier"].at(0.3), STATISTICS)
    assert read.metric("test", "loss")[0] == pytest.approx(cl.evaluate(there, TEST).loss, abs=CLOSE)


def test_singular_vectors_are_settled_and_networks_without_batch_norm_are_copied() -> None:
    def net(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(64, 10))).double()

    with torch.random.fork_rng(devices=[]):
        model, other = net(0), net(1)
    point = cl.Point(cl.WeightSpace(other).point(other).vector)
    made = cl.with_statistics(model, point, STATISTICS)
    # Its largest singular value is 1, whatever vectors the model came with.
    assert float(torch.linalg.matrix_norm(made[1].weight.detach(), 2)) == pytest.approx(1.0, abs=1e-6)


def test_the_ensemble_is_the_mean_of_the_members_probabilities() -> None:
    ts, path = (0.0, 0.3, 0.6, 1.0), PATHS["bezier"]
    alive: list[float] = []

    def members() -> Iterator[nn.Module]:
        for t in ts:
            alive.append(t)
            yield cl.with_statistics(small_net().double(), path.at(t), STATISTICS)

    found = cl.ensemble(members(), TEST)
    inputs, targets = (torch.cat(part) for part in zip(*TEST, strict=True))
    probabilities, accuracies = [], []
    for t in ts:
        net = small_net().double()
        for norm in (net.norm1, net.norm2):
            norm.momentum = 1.0
        weights = cl.WeightSpace(net).state_dict(path.at(t))
        functional_call(net.train(), weights, (STATISTICS[0][0],))
        for norm in (net.norm1, net.norm2):  # those of one batch, with the biased variance
            n = 64 * (64 if norm is net.norm1 else 16)
            norm.running_var *= (n - 1) / n
        logits = functional_call(net.eval(), weights, (inputs,))
        probabilities.append(logits.softmax(1))
        accuracies.append(float((logits.argmax(1) == targets).double().mean()))
    mean = torch.stack(probabilities).mean(0)
    assert found.members == pytest.approx(accuracies, abs=EXACT)
    assert found.accuracy == pytest.approx(float((mean.argmax(1) == targets).double().mean()), abs=EXACT)
    assert (found.n, alive) == (90, list(ts))


def test_points_of_a_trained_curve_make_an_ensemble_and_an_average() -> None:
    fit, statistics, test = digit_batches(500, 50), digit_batches(200, 100, start=500), digit_batches(600, start=900)
    model, *nets = (small_net(seed) for seed in range(3))
    ends = [cl.train(net, fit, lr=0.2, momentum=0.9, epochs=4, seed=seed).point for seed, net in enumerate(nets)]
    curve = cl.connect(model, *ends, fit, "bezier", epochs=6, lr=0.1)
    found = cl.ensemble((cl.with_statistics(model, curve.at(t), statistics) for t in (0, 0.25, 0.5, 0.75, 1)), test)
    averaged = cl.evaluate(cl.with_statistics(model, curve.average([0.25, 0.5, 0.75]), statistics), test)
    straight = cl.evaluate(cl.with_statistics(model, cl.line(*ends).average([0, 1]), statistics), test)
    assert len(found.members) == 5
    assert found.accuracy > np.mean(found.members) + 0.02
    # The mean of the ends lies on the barrier between them, that of the middle of the curve does not.
    assert averaged.accuracy > straight.accuracy + 0.05


def test_what_gives_no_statistics_is_refused() -> None:
    model, point = small_net().double(), PATHS["bezier"].at(0.5)
    refused: list[tuple[Any, Any, type[Exception], str]] = [
        (point, iter(STATISTICS), LoaderError, "stats_loader is a one-shot iterator"),
        (point, [], LoaderError, "stats_loader"),
        (torch.zeros(3), STATISTICS, MismatchError, "3 entries for a space of 852"),
    ]
    for weights, loader, error, message in refused:
        with pytest.raises(error, match=message):
            cl.with_statistics(model, weights, loader)

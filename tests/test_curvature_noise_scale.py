"""The noise scale where gradient and covariance are known, and against gradients per example."""

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import closerlook as cl
from closerlook.batches import Output
from closerlook.errors import UsageError
from networks import drawn, whole
from untouched import everything, same

MEAN = torch.tensor([0.5, 0.0, -0.2, 0.1], dtype=torch.float64)
SPREAD = torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=torch.float64)
SIGNAL, NOISE = float(MEAN @ MEAN), float(SPREAD @ SPREAD)


def product(model: nn.Module, batch: Tensor) -> Output:
    """The gradient of an example's loss is the example."""
    return Output(model(batch).squeeze(1), None)


def examples(n: int, seed: int) -> Tensor:
    return MEAN + SPREAD * drawn(n, 4, seed=seed)


def layer() -> nn.Linear:
    return nn.Linear(4, 1, bias=False).double()


def test_both_estimates_are_without_bias_for_batches_of_any_sizes() -> None:
    sizes = [1, 3, 8, 2, 10, 5, 1, 7]
    found = [
        cl.noise_scale(layer(), examples(sum(sizes), seed).split(sizes), batch_fn=product).noise
        for seed in range(400)
    ]
    for known, values in (
        (SIGNAL, [one.squared_gradient for one in found]), (NOISE, [one.variance for one in found]),
    ):  # fmt: skip
        assert abs(np.mean(values) - known) < 4 * np.std(values) / math.sqrt(len(values))


@pytest.mark.parametrize("batches", [10, 50])
def test_the_interval_covers_the_known_scale_about_as_often_as_it_says(batches: int) -> None:
    """80 %: of 100 data sets 80 expected. The jackknife is an approximation, so 68 to 92 (three standard errors)."""
    hits = 0
    for seed in range(100):
        found = cl.noise_scale(layer(), examples(32 * batches, seed).split(32), batch_fn=product, level=0.8).noise
        hits += found.low <= NOISE / SIGNAL <= found.high
    assert 68 <= hits <= 92


def test_equal_batches_as_two_batch_sizes_compare() -> None:
    """McCandlish et al., appendix A.1: the squared norms at two batch sizes."""
    x, small = examples(600, 1), 20
    squares = np.mean([float(part.mean(0) @ part.mean(0)) for part in x.split(small)])
    large = float(x.mean(0) @ x.mean(0))
    signal = (600 * large - small * squares) / (600 - small)
    noise = (squares - large) / (1 / small - 1 / 600)
    found = cl.noise_scale(layer(), x.split(small), batch_fn=product)
    assert found.noise.squared_gradient == pytest.approx(signal)
    assert found.noise.variance == pytest.approx(noise)
    assert found.value == pytest.approx(noise / signal)
    assert (found.passes, found.groups, found.batches) == (1, 20, 30)


def test_of_single_examples_it_is_the_covariance_of_their_gradients() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = drawn(40, 5), whole(3, 40)
    before = everything(model)
    found = cl.noise_scale(model, list(zip(x.split(1), y.split(1), strict=True)))
    assert same(before, everything(model))

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, weights, (x[None],)), y[None])

    weights = {name: value.detach() for name, value in model.named_parameters()}
    each = vmap(grad(loss), (None, 0, 0))(weights, x, y)
    for block, names in {"0": ["0.weight", "0.bias"], "2": ["2.weight", "2.bias"]}.items():
        rows = torch.cat([each[name].flatten(1) for name in names], 1)
        variance = float(rows.var(0).sum())
        assert found.blocks[block].variance == pytest.approx(variance)
        assert found.blocks[block].squared_gradient == pytest.approx(float(rows.mean(0).square().sum()) - variance / 40)
    assert found.noise.variance == pytest.approx(sum(block.variance for block in found.blocks.values()))


@given(order=st.permutations(range(12)), factor=st.floats(0.01, 100))
@settings(max_examples=15)
def test_order_of_batches_and_scale_of_the_loss_do_not_matter(order: list[int], factor: float) -> None:
    def scaled(model: nn.Module, batch: Tensor) -> Output:
        return Output(factor * product(model, batch).loss, None)

    parts = examples(120, 3).split(10)
    one = cl.noise_scale(layer(), parts, batch_fn=product)
    two = cl.noise_scale(layer(), [parts[number] for number in order], batch_fn=scaled)
    for name in ("scale", "low", "high"):
        assert getattr(two.noise, name) == pytest.approx(getattr(one.noise, name))
    assert two.noise.variance == pytest.approx(factor**2 * one.noise.variance)


def test_without_a_signal_it_is_infinite_and_without_noise_zero() -> None:
    pure = cl.noise_scale(layer(), (examples(400, 5) - MEAN).split(20), batch_fn=product)
    assert pure.noise.high == math.inf
    assert pure.to_dict()["high"] is None
    still = cl.noise_scale(layer(), [MEAN.expand(4, 4)] * 5, batch_fn=product)
    assert (still.value, still.noise.low, still.noise.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert still.noise.squared_gradient == pytest.approx(SIGNAL)


def test_told_drawn_and_refused() -> None:
    found = cl.noise_scale(layer(), examples(100, 0).split(10), batch_fn=product)
    assert found.to_frame()["scale"].tolist() == [found.value]
    assert found.to_dict()["blocks"]["(model)"]["scale"] == found.value
    assert found.plot().get_ylabel().startswith("noise scale")
    with pytest.raises(UsageError, match="at least 3"):
        cl.noise_scale(layer(), examples(20, 0).split(10), batch_fn=product)


def test_dropout_is_off_and_says_nothing(recwarn: Any) -> None:
    model = nn.Sequential(nn.Dropout(0.5), layer()).train()
    data = examples(60, 2).split(10)
    assert cl.noise_scale(model, data, batch_fn=product).noise.variance == pytest.approx(
        cl.noise_scale(layer(), data, batch_fn=product).noise.variance
    )
    assert not recwarn.list

"""The trace against dense Hessians, and its intervals over seeds."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import closerlook as cl
from closerlook.batches import Output
from closerlook.errors import UsageError
from conftest import digit_batches
from dense import dense_hessian
from networks import CASES, drawn
from untouched import everything, same

CASE = CASES["regression"]


def test_the_interval_covers_the_dense_trace_as_often_as_it_says() -> None:
    """At 80 %, 60 seeds: 48 expected; the binomial gives 36 to 58 a chance of 0.9999."""
    model = CASE.build(0)
    matrix = dense_hessian(model, CASE.batches, CASE.batch_fn)
    layers = {"0": slice(0, 42), "2": slice(42, 66)}
    hits = dict.fromkeys(("whole", *layers), 0)
    for seed in range(60):
        found = cl.hessian_trace(model, CASE.batches, batch_fn=CASE.batch_fn, samples=10, level=0.8, seed=seed)
        hits["whole"] += found.estimate.low <= np.trace(matrix) <= found.estimate.high
        for layer, span in layers.items():
            block = found.blocks[layer]
            hits[layer] += block.low <= np.trace(matrix[span, span]) <= block.high
    assert all(36 <= count <= 58 for count in hits.values()), hits


def test_many_samples_approach_it_and_blocks_add_up() -> None:
    model = CASE.build(0)
    matrix = dense_hessian(model, CASE.batches, CASE.batch_fn)
    few, many = (
        cl.hessian_trace(model, CASE.batches, batch_fn=CASE.batch_fn, samples=samples) for samples in (20, 320)
    )
    assert abs(many.value - np.trace(matrix)) < 4 * many.estimate.error
    # The variance of one draw is twice the sum of the squares beside the diagonal.
    known = np.sqrt(2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2)) / 320)
    assert many.estimate.error == pytest.approx(known, rel=0.2)
    assert many.estimate.error < few.estimate.error / 2
    assert (many.products, many.passes) == (320, 960)


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
def test_batch_norm_either_way(batch_norm: Any) -> None:
    model, data = CASES["batch norm [n, c]"].build(0), digit_batches(40, 20, dtype=torch.float64)
    found = cl.hessian_trace(model, data, samples=60, batch_norm=batch_norm, params="[23].*")
    known = np.trace(dense_hessian(model, data, batch_norm=batch_norm, names=["2.weight", "2.bias"]))
    assert found.blocks.keys() == {"2"}
    assert abs(found.value - known) < 4 * found.estimate.error + 1e-9


def test_a_diagonal_hessian_needs_no_luck() -> None:
    def squares(model: nn.Module, batch: Any) -> Output:
        return Output(model(batch).square().sum(1), None)

    x = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    found = cl.hessian_trace(nn.Linear(3, 1, bias=False).double(), [x], batch_fn=squares, samples=2)
    assert found.value == pytest.approx(2 * 14 / 3)
    assert found.estimate.error == pytest.approx(0, abs=1e-12)


def test_scale_of_the_loss_and_seed() -> None:
    def twice(model: nn.Module, batch: Any) -> Output:
        assert CASE.batch_fn is not None
        return Output(2 * CASE.batch_fn(model, batch).loss, None)

    model = CASE.build(0)
    before = everything(model)
    one, again, other = (
        cl.hessian_trace(model, CASE.batches, batch_fn=CASE.batch_fn, samples=5, seed=seed) for seed in (0, 0, 1)
    )
    double = cl.hessian_trace(model, CASE.batches, batch_fn=twice, samples=5)
    assert same(before, everything(model))
    assert one.value == again.value != other.value
    assert double.value == pytest.approx(2 * one.value)
    assert double.estimate.error == pytest.approx(2 * one.estimate.error)


def test_told_drawn_and_refused() -> None:
    found = cl.hessian_trace(nn.Linear(5, 3), [(drawn(4, 5).float(), torch.arange(4) % 3)], samples=3)
    assert found.to_dict()["blocks"]["(model)"]["value"] == pytest.approx(found.value)
    assert found.to_frame()["block"].tolist() == ["(model)"]
    assert found.plot().get_ylabel().startswith("trace")
    with pytest.raises(UsageError, match="at least 2"):
        cl.hessian_trace(nn.Linear(5, 3), [(drawn(4, 5).float(), torch.arange(4) % 3)], samples=1)

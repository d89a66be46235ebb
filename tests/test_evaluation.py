"""Judged numbers, and batch-norm statistics against one large activation held in memory."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from closerlook.batches import Feed, Output, classification
from closerlook.errors import LoaderError
from closerlook.evaluation import batch_norms, estimate_batch_stats, evaluate
from conftest import Batch, digit_batches, small_net

FEED = Feed(torch.device("cpu"))
# Sums of some thousand float64 numbers of size 1: 1e-16 each, far below this.
EXACT = 1e-12
# 96 + 37 examples: the last batch is smaller.
UNEQUAL = digit_batches(133, 48, dtype=torch.float64)


def test_losses_are_those_of_each_example() -> None:
    model, batches = small_net().double().eval(), UNEQUAL
    inputs, targets = (torch.cat(part) for part in zip(*batches, strict=True))
    logits = model(inputs).detach()
    expected = logits.exp().sum(1).log() - logits[torch.arange(133), targets]
    found = evaluate(model.train(), batches, outputs=True)
    assert np.allclose(found.losses, expected.numpy(), rtol=0, atol=EXACT)
    # The plain mean over examples, not a mean of batch means.
    assert found.loss == pytest.approx(float(expected.mean()), abs=EXACT)
    assert found.accuracy == float((logits.argmax(1) == targets).double().mean())
    assert found.error == 1 - found.accuracy
    assert found.to_dict() == {"n": 133, "loss": found.loss, "accuracy": found.accuracy, "error": found.error}
    assert found.outputs is not None
    assert found.outputs.dtype == torch.float64
    assert torch.allclose(found.outputs, logits, rtol=0, atol=EXACT)
    assert not found.outputs.is_inference()


def test_low_precision_outputs_come_in_float32() -> None:
    found = evaluate(small_net(), digit_batches(), outputs=True, autocast=torch.bfloat16)
    assert found.outputs is not None
    assert found.outputs.dtype == torch.float32


def test_losses_are_summed_in_float64() -> None:
    # One large loss, then many that float32 sums would lose: 2^24 + 1 is no float32.
    losses = torch.cat([torch.tensor([2.0**24]), torch.ones(4096)])
    found = evaluate(nn.Identity(), [losses], batch_fn=lambda model, batch: Output(model(batch), None))
    assert found.losses.dtype == np.float64
    assert found.loss * found.n == 2.0**24 + 4096
    assert found.accuracy is None
    assert found.error is None


def test_the_model_is_read_in_eval_mode_and_keeps_its_modes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    model.train()
    model[0].eval()
    first, second = evaluate(model, digit_batches()), evaluate(model, digit_batches())
    assert (first.losses == second.losses).all()
    assert [module.training for module in model.modules()] == [True, False, True, True]


def test_an_empty_or_one_shot_loader_is_refused() -> None:
    with pytest.raises(LoaderError, match="no batch"):
        evaluate(nn.Identity(), [])
    with pytest.raises(LoaderError, match="one-shot"):
        evaluate(nn.Identity(), iter(digit_batches()))


def statistics(model: nn.Module, batches: list[Batch], pooling: str = "pooled") -> list[tuple[Tensor, Tensor]]:
    """Means and variances of all norm layers after the estimate."""
    examples = estimate_batch_stats(model, batches, FEED, pooling)  # type: ignore[arg-type]
    assert examples == sum(len(targets) for _, targets in batches)
    return [(norm.running_mean.clone(), norm.running_var.clone()) for norm in batch_norms(model)]


def activations(model: nn.Module, batches: list[Batch]) -> list[list[Tensor]]:
    """What enters each norm layer, [examples x positions, channels], by layer and batch, in train mode."""
    seen: list[list[Tensor]] = []
    for norm in batch_norms(model):
        kept: list[Tensor] = []
        norm.register_forward_hook(lambda _, inputs, __, kept=kept: kept.append(inputs[0].transpose(0, 1).flatten(1).T))
        seen.append(kept)
    with torch.no_grad():
        for inputs, _ in batches:
            model.train()(inputs)
    return seen


def test_pooled_statistics_are_those_of_one_large_activation() -> None:
    found = statistics(small_net().double(), UNEQUAL)
    for (mean, variance), kept in zip(found, activations(small_net().double(), UNEQUAL), strict=True):
        whole = torch.cat(kept)
        assert torch.allclose(mean, whole.mean(0), rtol=0, atol=EXACT)
        assert torch.allclose(variance, whole.var(0, correction=0), rtol=0, atol=EXACT)


def test_reference_statistics_average_the_unbiased_variances_of_batches() -> None:
    found = statistics(small_net().double(), UNEQUAL, "reference")
    for (mean, variance), kept in zip(found, activations(small_net().double(), UNEQUAL), strict=True):
        counts = [len(part) for part in kept]
        weighted = sum(n * part.var(0, correction=1) for n, part in zip(counts, kept, strict=True)) / sum(counts)
        assert torch.allclose(mean, torch.cat(kept).mean(0), rtol=0, atol=EXACT)
        assert torch.allclose(variance, weighted, rtol=0, atol=EXACT)


def test_reference_statistics_equal_those_of_weight_averaging() -> None:
    batches = digit_batches(128, 32, dtype=torch.float64)
    theirs = small_net().double()
    torch.optim.swa_utils.update_bn([inputs for inputs, _ in batches], theirs)
    for norm, (mean, variance) in zip(
        batch_norms(theirs), statistics(small_net().double(), batches, "reference"), strict=True
    ):
        assert torch.allclose(norm.running_mean, mean, rtol=0, atol=EXACT)
        assert torch.allclose(norm.running_var, variance, rtol=0, atol=EXACT)


@settings(max_examples=20)
@given(st.lists(st.integers(2, 22), min_size=1, max_size=6))
def test_the_first_layers_pooled_statistics_do_not_depend_on_the_cuts(sizes: list[int]) -> None:
    inputs = torch.cat([part for part, _ in UNEQUAL])[: sum(sizes)]
    cut = [(part, torch.zeros(len(part), dtype=torch.long)) for part in inputs.split(sizes)]
    whole = [(inputs, torch.zeros(len(inputs), dtype=torch.long))]
    for ours, theirs in zip(
        statistics(small_net().double(), cut)[0], statistics(small_net().double(), whole)[0], strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=0, atol=EXACT)


def test_a_layer_used_twice_pools_both_uses() -> None:
    norm = nn.BatchNorm1d(3).double()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm(10 * x + 5)

    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ((mean, variance),) = statistics(Twice(), [(x, torch.zeros(7, dtype=torch.long))])
    both = torch.cat([x, 10 * x + 5])
    assert torch.allclose(mean, both.mean(0), rtol=0, atol=EXACT)
    # Variances of size 50 here.
    assert torch.allclose(variance, both.var(0, correction=0), rtol=EXACT, atol=0)


@pytest.mark.parametrize("pooling", ["pooled", "reference"])
def test_statistics_of_a_diverged_run_do_not_survive(pooling: str) -> None:
    broken = small_net().double()
    for norm in batch_norms(broken):
        norm.running_mean.fill_(math.nan)
        norm.running_var.fill_(math.inf)
    for ours, theirs in zip(
        statistics(broken, UNEQUAL, pooling), statistics(small_net().double(), UNEQUAL, pooling), strict=True
    ):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


class Flaky:
    """The default batch function until call number `at`, which raises."""

    def __init__(self, at: int) -> None:
        self.calls, self.at = 0, at

    def __call__(self, model: nn.Module, batch: Batch) -> Output:
        self.calls += 1
        if self.calls == self.at:
            raise RuntimeError("broken batch")
        return classification(model, batch)


@pytest.mark.parametrize("at", [None, 1, 3])
def test_momentum_and_hooks_come_back(at: int | None) -> None:
    model = small_net()
    model.norm1.momentum, model.norm2.momentum = None, 0.3
    feed = Feed(torch.device("cpu"), Flaky(at or 99))
    if at is None:
        estimate_batch_stats(model, digit_batches(), feed)
    else:
        with pytest.raises(RuntimeError, match="broken batch"):
            estimate_batch_stats(model, digit_batches(), feed)
    assert (model.norm1.momentum, model.norm2.momentum) == (None, 0.3)
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module.training for module in model.modules())


def test_only_norm_layers_are_in_train_mode_during_the_pass() -> None:
    model = nn.Sequential(small_net(), nn.Dropout(0.5)).train()
    seen: list[list[str]] = []

    def batch_fn(network: nn.Module, batch: Batch) -> Output:
        seen.append([type(module).__name__ for module in network.modules() if module.training])
        return classification(network, batch)

    estimate_batch_stats(model, digit_batches(), Feed(torch.device("cpu"), batch_fn))
    assert seen == [["BatchNorm2d", "BatchNorm2d"]] * 3

"""Judged numbers, and batch-norm statistics against one large activation held in memory."""

import math
from collections.abc import Callable

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


# Any layer that keeps statistics, against the formulas in numpy -------------------------------------------------------


def inputs_of(shape: tuple[int, ...]) -> list[Tensor]:
    """Batches of 7, 7 and 3 examples, each shifted and scaled on its own, so that no weighting is hidden."""
    source = torch.Generator().manual_seed(0)
    return [
        (number + 1.0) * torch.randn(size, *shape, dtype=torch.float64, generator=source) + 3 * number
        for number, size in enumerate((7, 7, 3))
    ]


def by_formula(batches: list[Tensor], pooling: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance per channel, written from the docstring's formulas, without PyTorch."""
    flat = [np.moveaxis(batch.numpy(), 1, 0).reshape(batch.shape[1], -1) for batch in batches]
    n_b = np.array([rows.shape[1] for rows in flat])
    m_b = np.stack([rows.sum(1) / rows.shape[1] for rows in flat])
    v_b = np.stack([((rows - m[:, None]) ** 2).sum(1) / rows.shape[1] for rows, m in zip(flat, m_b, strict=True)])
    n, weights = n_b.sum(), n_b[:, None]
    mean = (weights * m_b).sum(0) / n
    if pooling == "pooled":
        return mean, (weights * (v_b + (m_b - mean) ** 2)).sum(0) / n
    return mean, (weights * (weights / (weights - 1)) * v_b).sum(0) / n


def per_example(batches: list[Tensor], pooling: str) -> tuple[np.ndarray, np.ndarray]:
    """The means over examples of each example's own mean and variance: instance norm."""
    rows = np.concatenate([batch.numpy().reshape(*batch.shape[:2], -1) for batch in batches])
    values = rows.shape[2]
    means = rows.sum(2) / values
    squares = ((rows - means[:, :, None]) ** 2).sum(2)
    return means.mean(0), (squares / (values if pooling == "pooled" else values - 1)).mean(0)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "BatchNorm1d [n, c]": (lambda: nn.BatchNorm1d(4), (4,)),
    "BatchNorm1d [n, c, l]": (lambda: nn.BatchNorm1d(4), (4, 5)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), (4, 3, 2)),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(4), (4, 2, 3, 2)),
    "without affine": (lambda: nn.BatchNorm2d(4, affine=False), (4, 3, 2)),
    "cumulative": (lambda: nn.BatchNorm2d(4, momentum=None), (4, 3, 2)),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(4), (4, 3, 2)),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(4, track_running_stats=True), (4, 6)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), (4, 3, 2)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("pooling", ["pooled", "reference"])
def test_every_layer_agrees_with_the_formulas(kind: str, pooling: str) -> None:
    make, shape = LAYERS[kind]
    layer, batches = make().double(), inputs_of(shape)
    feed = Feed(torch.device("cpu"), lambda model, batch: Output(model(batch).flatten(1).sum(1), None))
    assert estimate_batch_stats(layer, batches, feed, pooling) == 17  # type: ignore[arg-type]
    mean, variance = (per_example if "Instance" in kind else by_formula)(batches, pooling)
    assert np.allclose(layer.running_mean.numpy(), mean, rtol=0, atol=EXACT)
    # Variances of size 10.
    assert np.allclose(layer.running_var.numpy(), variance, rtol=EXACT, atol=0)


class Branches(nn.Module):
    """One norm that is called, one that only training calls, one in another branch."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.auxiliary, self.other = (nn.BatchNorm1d(64) for _ in range(3))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.auxiliary(x)
        return self.head(self.used(input=x))


def test_a_layer_that_is_not_called_keeps_its_statistics() -> None:
    model = Branches()
    for norm in (model.auxiliary, model.other):
        norm.running_mean.fill_(3.0)
        norm.running_var.fill_(5.0)
        norm.num_batches_tracked.fill_(7)
    estimate_batch_stats(model, digit_batches(), FEED)
    for norm in (model.auxiliary, model.other):
        assert bool((norm.running_mean == 3).all())
        assert bool((norm.running_var == 5).all())
        assert int(norm.num_batches_tracked) == 7
    inputs = torch.cat([x for x, _ in digit_batches()]).flatten(1)
    assert torch.allclose(model.used.running_mean, inputs.mean(0), rtol=0, atol=1e-6)  # of float32


def test_layers_without_running_statistics_are_left_alone() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.InstanceNorm2d(1), nn.GroupNorm(1, 1))
    assert batch_norms(model) == []


def test_a_single_example_is_refused_with_its_repair() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    with pytest.raises(LoaderError, match=r"one value per channel.*leaves no single example over, or drop_last=True"):
        estimate_batch_stats(model, digit_batches(33, 32), FEED)
    with pytest.raises(LoaderError, match="one value per channel"):
        estimate_batch_stats(
            nn.InstanceNorm1d(4, track_running_stats=True),
            [torch.zeros(3, 4, 1)],
            Feed(torch.device("cpu"), lambda model, batch: Output(model(batch).flatten(1).sum(1), None)),
        )


def test_another_error_of_the_batch_function_stays_what_it_is() -> None:
    def broken(model: nn.Module, batch: Batch) -> Output:
        raise ValueError("other")

    with pytest.raises(ValueError, match=r"^other$"):
        estimate_batch_stats(small_net(), digit_batches(), Feed(torch.device("cpu"), broken))


# Shares of hits -------------------------------------------------------------------------------------------------------


def test_hits_may_be_shares() -> None:
    def shares(model: nn.Module, batch: Batch) -> Output:
        output = classification(model, batch)
        return Output(output.loss, output.outputs, batch[1] / 10)

    found = evaluate(small_net(), digit_batches(), batch_fn=shares)
    labels = torch.cat([targets for _, targets in digit_batches()])
    assert found.correct is not None
    assert found.accuracy == pytest.approx(float((labels / 10).double().mean()), abs=1e-7)  # shares in float32
    assert found.error == pytest.approx(1 - float(found.accuracy or 0), abs=EXACT)


@pytest.mark.parametrize(("outputs", "message"), [(None, "not NoneType"), (torch.zeros(3, 2), r"not \(3, 2\)")])
def test_outputs_that_cannot_be_kept_are_refused(outputs: Tensor | None, message: str) -> None:
    def batch_fn(model: nn.Module, batch: Batch) -> Output:
        return Output(classification(model, batch).loss, outputs)

    assert evaluate(small_net(), digit_batches(), batch_fn=batch_fn).n == 96
    with pytest.raises(LoaderError, match=rf"outputs that can be kept, one tensor \[32, \.\.\.\], {message}"):
        evaluate(small_net(), digit_batches(), batch_fn=batch_fn, outputs=True)


class Masked(nn.Module):
    """Keeps a tensor for later at its first call, outside its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.mask = nn.Linear(64, 10), None

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = torch.ones(10)
        return self.head(x.flatten(1)) * self.mask


def test_what_a_module_keeps_while_it_is_read_can_be_trained_on() -> None:
    model = Masked()
    evaluate(model, digit_batches())
    classification(model, digit_batches()[0]).loss.mean().backward()
    assert model.head.weight.grad is not None

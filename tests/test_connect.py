"""Training of curves against dense autograd: leaf tensors, functional calls, torch's own optimizer."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import closerlook as cl
from closerlook.batches import Output, classification
from closerlook.data import TensorBatches
from closerlook.errors import LoaderError, MismatchError, UsageError
from closerlook.training import checkpoint
from closerlook.training.loop import mixed_seed
from closerlook.weights import WeightSpace
from conftest import Batch, digit_batches, small_net

# Losses of size 2 and gradients of size 1 in float64, through two layers and nine steps: rounding is below 1e-13.
CLOSE = 1e-10
BATCHES = digit_batches(80, 32, dtype=torch.float64)


class Tied(nn.Module):
    """Pixels to a code and back by the same weight; the 64 outputs serve as logits."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = nn.Linear(64, 5, bias=False)
            self.code = nn.Linear(5, 5)
            self.decoder = nn.Linear(64, 5, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.code(self.encoder(x.flatten(1)))) @ self.decoder.weight


NETWORKS = {"norms": small_net, "tied": Tied}


def at(kind: str, points: Sequence[Tensor], t: float) -> Tensor:
    """The curve by its geometric definition: de Casteljau's scheme, or the segment that t lies in."""
    if kind == "bezier":
        while len(points) > 1:
            points = [(1 - t) * a + t * b for a, b in pairwise(points)]
        return points[0]
    position = t * (len(points) - 1)
    number = min(math.floor(position), len(points) - 2)
    return points[number] + (position - number) * (points[number + 1] - points[number])


def loss_at(model: nn.Module, w: Tensor, buffers: dict[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy of a batch at weights w, in train mode; `buffers` go on."""
    named = dict(model.named_parameters())
    parts = w.split([value.numel() for value in named.values()])
    weights = {name: part.view(value.shape) for (name, value), part in zip(named.items(), parts, strict=True)}
    logits = functional_call(model.train(), {**weights, **buffers}, (batch[0],))
    return (logits.logsumexp(1) - logits[torch.arange(len(logits)), batch[1]]).mean()


def drawn_t(seed: int, step: int) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, step))
        return torch.rand((), dtype=torch.float64).item()


def flat(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().reshape(-1) for value in model.parameters()])


def start(kind: str, bends: int, network: str) -> tuple[nn.Module, list[Tensor]]:
    """A model in float64, and the points at which the curve between two others begins."""
    a, b = (flat(NETWORKS[network](seed).double()) for seed in (1, 2))
    shares = [number / (bends + 1) for number in range(bends + 2)]
    return NETWORKS[network](0).double(), [a + share * (b - a) for share in shares]


SHAPES = [(kind, bends) for kind in ("polychain", "bezier") for bends in (1, 2)]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("kind", "bends"), SHAPES)
def test_the_gradient_of_every_bend_is_that_of_autograd(kind: str, bends: int, network: str) -> None:
    decay, touched = 0.3, set()
    for seed in range(4):
        model, points = start(kind, bends, network)
        buffers = {name: value.clone() for name, value in model.named_buffers()}
        leaves = [point.requires_grad_() for point in points[1:-1]]
        w = at(kind, points, drawn_t(seed, 0))
        loss = loss_at(model, w, buffers, BATCHES[0])
        expected = torch.autograd.grad(loss + decay / 2 * (w * w).sum(), leaves, materialize_grads=True)
        # One step of plain descent with rate 1: the bends move by minus their gradients.
        curve = cl.connect(
            model, points[0], points[-1], BATCHES[:1], kind, bends, epochs=1, optimizer=_descent, weight_decay=decay,
            schedule=cl.constant(), seed=seed,
        )  # fmt: skip
        assert curve.history[0]["loss"] == pytest.approx(loss.item(), abs=CLOSE)
        for number, (leaf, gradient) in enumerate(zip(leaves, expected, strict=True), 1):
            assert torch.allclose(leaf.detach() - curve.points[number].vector, gradient, rtol=0, atol=CLOSE)
            if gradient.abs().max() > 0.01:
                touched.add(number)
    assert touched == set(range(1, bends + 1))


def _descent(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("kind", "bends"), SHAPES)
def test_training_equals_a_plain_loop_over_separate_leaves(kind: str, bends: int, network: str) -> None:
    decay, rate, seed, epochs = 0.01, 0.1, 5, 4
    model, points = start(kind, bends, network)
    curve = cl.connect(
        model, points[0], points[-1], BATCHES, kind, bends, epochs=epochs, lr=rate, momentum=0.9,
        weight_decay=decay, seed=seed, snapshots=["7it"],
    )  # fmt: skip

    leaves = [point.clone().requires_grad_() for point in points[1:-1]]
    for leaf in leaves:
        leaf.grad = torch.zeros_like(leaf)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    optimizer = torch.optim.SGD(leaves, lr=rate, momentum=0.9)
    losses, kept, total = [], [], epochs * len(BATCHES)
    for step in range(total):
        # The paper's schedule: full rate for half of the steps, linear down to 1 % at 90 %, then 1 %.
        begin, end = round(0.5 * total), round(0.9 * total)
        share = min(max((step - begin) / (end - begin), 0), 1)
        optimizer.param_groups[0]["lr"] = rate * (1 - 0.99 * share)
        w = at(kind, [points[0], *leaves, points[-1]], drawn_t(seed, step))
        loss = loss_at(model, w, buffers, BATCHES[step % len(BATCHES)])
        optimizer.zero_grad(set_to_none=False)  # a bend that t does not touch still moves on by its momentum
        (loss + decay / 2 * (w * w).sum()).backward()
        optimizer.step()
        losses.append(loss.item())
        if step + 1 == 7:
            kept = [leaf.detach().clone() for leaf in leaves]

    assert torch.dist(leaves[0], points[1]) > 0.1
    for number, leaf in enumerate(leaves, 1):
        assert torch.allclose(curve.points[number].vector, leaf.detach(), rtol=0, atol=CLOSE)
        assert torch.allclose(curve.snapshots[7].points[number].vector, kept[number - 1], rtol=0, atol=CLOSE)
        assert torch.allclose(curve.snapshots[0].points[number].vector, points[number], rtol=0, atol=CLOSE)
    means = [sum(losses[first : first + 3]) / 3 for first in range(0, total, 3)]
    assert [row["loss"] for row in curve.history] == pytest.approx(means, abs=CLOSE)
    assert curve.history[-1]["lr"] == pytest.approx(rate * 0.01, abs=CLOSE)
    assert list(curve.snapshots) == [0, 7, total]
    assert curve.free == tuple(range(1, bends + 1))


@pytest.mark.parametrize("bends", [1, 3])
def test_the_memory_format_changes_nothing_but_rounding(bends: int) -> None:
    curves = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model, a, b = (small_net(seed).double().to(memory_format=memory_format) for seed in range(3))
        curves.append(cl.connect(model, a, b, BATCHES, "bezier", bends, epochs=2, lr=0.1))
    for plain, last in zip(curves[0].points, curves[1].points, strict=True):
        assert torch.allclose(plain.vector, last.vector, rtol=0, atol=CLOSE)
    # The bends differ from each other: none of them is another's row of memory.
    vectors = [point.vector for point in curves[1].points]
    assert min(float(torch.dist(one, other)) for one, other in pairwise(vectors)) > 0.1


def test_the_ends_stay_what_they_were() -> None:
    model, a, b = (small_net(seed) for seed in range(3))
    first, last = flat(a), flat(b)
    curve = cl.connect(model, a, b, digit_batches(), epochs=1, lr=0.1)
    assert torch.equal(curve.points[0].vector, first)
    assert torch.equal(curve.points[-1].vector, last)
    assert torch.equal(curve.at(0).vector, first)
    assert torch.equal(curve.at(1).vector, last)
    assert torch.equal(curve.points[0].buffers["norm1.running_mean"], a.norm1.running_mean)
    assert not curve.points[1].buffers
    assert curve.points[1].dtype == torch.float32


def test_training_lowers_the_loss_along_the_curve() -> None:
    batches = digit_batches(200, 50)
    model, a, b = (small_net(seed) for seed in range(3))
    a, b = (cl.train(net, batches, lr=0.2, momentum=0.9, epochs=6).point for net in (a, b))
    curve = cl.connect(model, a, b, batches, "bezier", epochs=8, lr=0.05)
    barriers = [
        cl.profile(model, path, batches, points=9).barrier(definition="above_ends").value
        for path in (cl.line(a, b), curve)
    ]
    assert barriers[0] > 0.3
    assert barriers[1] < barriers[0] / 3


def test_a_callers_autocast_region_does_not_freeze_the_weights() -> None:
    model, a, b = (small_net(seed) for seed in range(3))

    def losses(autocast: torch.dtype | None) -> list[float]:
        # Rate 0: what differs from epoch to epoch is t alone.
        curve = cl.connect(model, a, b, digit_batches(32), epochs=4, lr=0.0, autocast=autocast)
        return [row["loss"] for row in curve.history]

    for autocast in (None, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16):
            inside = losses(autocast)
        assert inside == losses(autocast)
        assert len(set(inside)) == 4


def test_dropping_the_gradients_is_an_error_and_not_a_standstill() -> None:
    model, a, b = (small_net(seed) for seed in range(3))

    def forgetful(model: nn.Module, batch: Batch) -> Output:
        model.zero_grad(set_to_none=True)
        return classification(model, batch)

    with pytest.raises(UsageError, match=r"zero_grad\(set_to_none=True\)"):
        cl.connect(model, a, b, digit_batches(), epochs=1, batch_fn=forgetful)


def test_what_cannot_become_a_curve_is_refused_before_any_step() -> None:
    model, a, b = (small_net(seed) for seed in range(3))
    calls: list[int] = []

    def counted(model: nn.Module, batch: Batch) -> Output:
        calls.append(1)
        return classification(model, batch)

    nan = flat(b)
    nan[3] = math.nan
    doubles = [WeightSpace(small_net(seed).double()).point(small_net(seed).double()) for seed in (1, 2)]
    refused: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (a, nan, {}, UsageError, "NaN"),
        (a, flat(b).double(), {}, MismatchError, "point 1 is torch.float64"),
        (*doubles, {}, MismatchError, "weights are torch.float64, the model is torch.float32"),
        (a, flat(b)[1:], {}, MismatchError, "851 entries for a space of 852"),
        (a, b, {"kind": "plane"}, UsageError, "'polychain' or a 'bezier'"),
        (a, b, {"bends": 0}, UsageError, "at least one bend"),
        (a, b, {"loader": iter(digit_batches())}, LoaderError, "one-shot"),
        (a, b, {"loader": (batch for batch in digit_batches())}, LoaderError, "one-shot"),
        (a, b, {"loader": []}, UsageError, "no step to take"),
        (a, b, {"optimizer": "newton"}, UsageError, "unknown optimizer 'newton'"),
    ]
    for first, last, options, error, message in refused:
        settings: dict[str, Any] = {"loader": digit_batches(), "epochs": 1, "batch_fn": counted, **options}
        with pytest.raises(error, match=message):
            cl.connect(model, first, last, settings.pop("loader"), **settings)
    assert not calls


def test_a_curve_that_diverges_says_so() -> None:
    model, a, b = (small_net(seed) for seed in range(3))

    def exploding(model: nn.Module, batch: Batch) -> Output:
        output = classification(model, batch)
        return Output(output.loss * torch.where(model.head.weight.abs().sum() > 1e6, math.inf, 1.0), output.outputs)

    curve = cl.connect(model, a, b, digit_batches(), epochs=5, lr=1e9, batch_fn=exploding)
    assert curve.history[-1]["diverged"]
    assert curve.history[-1]["step"] < 15
    assert torch.isfinite(curve.points[1].vector).all()


@pytest.mark.parametrize("bends", [1, 2])
def test_a_stopped_training_goes_on_to_the_same_bits(bends: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)  # a state after every step
    model, a, b = (small_net(seed).to(memory_format=torch.channels_last) for seed in range(3))
    inputs, targets = (torch.cat(part) for part in zip(*digit_batches(), strict=True))
    loader = TensorBatches(inputs, targets, 20, shuffle=True)
    calls: list[int] = []

    def stops(model: nn.Module, batch: Batch) -> Output:
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return classification(model, batch)

    def trained(**options: Any) -> cl.Subspace:
        return cl.connect(model, a, b, loader, "bezier", bends, epochs=3, lr=0.1, snapshots=["4it"], **options)

    with pytest.raises(KeyboardInterrupt):
        trained(out=tmp_path / "run", batch_fn=stops)
    resumed, whole = trained(out=tmp_path / "run", batch_fn=stops), trained()
    # A trial of the layout, 7 steps, one that failed, and the 8 that were left: nothing is done twice.
    assert len(calls) == 17
    for one, other in zip(resumed.points, whole.points, strict=True):
        assert torch.equal(one.vector, other.vector)
    for step in (0, 4, 15):
        for one, other in zip(resumed.snapshots[step].points, whole.snapshots[step].points, strict=True):
            assert torch.equal(one.vector, other.vector)
    assert resumed.history == whole.history


def test_a_folder_of_another_curve_is_refused(tmp_path: Path) -> None:
    model, a, b, c = (small_net(seed) for seed in range(4))
    settings: dict[str, Any] = {"epochs": 1, "kind": "bezier", "bends": 1, "out": tmp_path}
    cl.connect(model, a, b, digit_batches(), **settings)
    for other, named in (({"kind": "polychain"}, "kind"), ({"bends": 2}, "bends"), ({"weight_decay": 0.0}, "decay")):
        with pytest.raises(UsageError, match=f"another .*{named}"):
            cl.connect(model, a, b, digit_batches(), **{**settings, **other})
    with pytest.raises(UsageError, match="another ends"):
        cl.connect(model, a, c, digit_batches(), **settings)

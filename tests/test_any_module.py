"""Any module: the same properties of points, readings and curves over one table of networks (tests/networks.py)."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import closerlook as cl
from closerlook.batches import Feed, Output, classification
from closerlook.evaluation import estimate_batch_stats, settle_spectral_norms
from closerlook.weights import named
from networks import CASES, Case
from untouched import everything, same

# Losses of size 1 to 10 in float64, from some hundred sums of up to 64 products, read through other memory formats.
EXACT = 1e-11


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(autouse=True)
def _quiet_compiler() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of torch.compile's own imports
        yield


def points_of(case: Case, model: nn.Module, count: int) -> list[cl.Point]:
    space = cl.WeightSpace(model, case.params)
    return [space.point(case.build(seed)) for seed in range(1, count + 1)]


# Points ---------------------------------------------------------------------------------------------------------------


def test_a_point_is_the_model(case: Case, tmp_path: Path) -> None:
    model = case.build(1)
    space = cl.WeightSpace(model, case.params)
    point = space.point(model)
    state, own = space.state_dict(point), model.state_dict()
    assert space.size == sum(value.numel() for value in dict.fromkeys(named(model).parameters[n] for n in space.names))
    assert all(torch.equal(state[name], own[name]) and state[name].dtype == own[name].dtype for name in state)
    torch.save(own, tmp_path / "a.pt")
    for source in (state, own, tmp_path / "a.pt"):
        again = space.point(source)
        assert torch.equal(again.vector, point.vector)
        assert same(dict(again.buffers), dict(point.buffers))
    other = case.build(2)
    other.load_state_dict(state, strict=case.params == "*")
    assert torch.equal(space.point(other).vector, point.vector)
    assert case.params != "*" or same(other.state_dict(), own)
    assert [id(value) for value in other.parameters()] == [id(value) for value in dict.fromkeys(other.parameters())]


def test_tied_weights_stay_tied() -> None:
    model = CASES["tied language model"].build(0)
    space = cl.WeightSpace(model)
    assert "output.weight" not in space.names
    assert model.output.weight is model.embedding.weight
    run_all(CASES["tied language model"], model)
    assert model.output.weight is model.embedding.weight
    # A file that holds only the other of its names, as safetensors of a tied model do.
    state = {name: value for name, value in model.state_dict().items() if name != "embedding.weight"}
    assert torch.equal(space.point(state).vector, space.point(model).vector)
    with pytest.raises(cl.CloserlookError, match=r"other numbers in output\.weight than in embedding\.weight"):
        space.point({**model.state_dict(), "output.weight": torch.zeros(11, 8, dtype=torch.float64)})


# The caller's things --------------------------------------------------------------------------------------------------


def run_all(case: Case, model: nn.Module, look: Callable[[], None] = lambda: None) -> None:
    """Every instrument once, with a look after each."""
    a, b, c = points_of(case, model, 3)
    loader, rest = {"train": case.batches}, {"params": case.params, "batch_fn": case.batch_fn}
    for call in (
        lambda: cl.profile(model, cl.line(a, b), loader, points=3, **rest),
        lambda: cl.surface(model, cl.plane(a, b, c), loader, grid=(2, 2), **rest),
        lambda: cl.barrier(model, a, b, case.batches, points=3, **rest),
        lambda: cl.connect(model, a, b, case.batches, epochs=1, lr=0.01, **rest),
    ):
        call()
        look()


def test_the_model_comes_back_as_it_was(case: Case) -> None:
    model = case.build(0).train()
    modules = list(model.modules())
    modules[len(modules) // 2].eval()
    first = next(value for value in model.parameters() if value.numel())
    first.grad = torch.full_like(first, 2.0)
    torch.manual_seed(3)
    before = everything(model)

    def look() -> None:
        after = everything(model)
        assert [name for name in before if not same(before[name], after[name])] == []

    run_all(case, model, look)
    # It can still be trained.
    (case.batch_fn or classification)(model.requires_grad_(True), case.batches[0]).loss.mean().backward()


# Readings -------------------------------------------------------------------------------------------------------------


def placed(case: Case, model: nn.Module, vector: Tensor, buffers: dict[str, Tensor] | None = None) -> nn.Module:
    """A copy of the model at a point; with batch-norm statistics of its own, or those estimated there."""
    there = copy.deepcopy(model)
    space = cl.WeightSpace(there, case.params)
    there.load_state_dict(space.state_dict(cl.Point(vector, buffers or {})), strict=False)
    if buffers is None:
        settle_spectral_norms(there)
        feed = Feed(torch.device("cpu"), case.batch_fn or classification)
        if case.normed:
            estimate_batch_stats(there, case.batches, feed)
    return there


def losses_at(case: Case, model: nn.Module, *where: Any) -> tuple[float, float | None]:
    found = cl.evaluate(placed(case, model, *where), case.batches, batch_fn=case.batch_fn)
    return found.loss, found.accuracy


def test_a_path_begins_and_ends_with_its_ends(case: Case) -> None:
    model = case.build(0)
    a, b = points_of(case, model, 2)
    found = cl.profile(
        model, cl.line(a, b), {"train": case.batches}, points=[0.0, 0.3, 1.0], params=case.params,
        batch_fn=case.batch_fn,
    )  # fmt: skip
    for number, vector in enumerate((a.vector, 0.7 * a.vector + 0.3 * b.vector, b.vector)):
        loss, accuracy = losses_at(case, model, vector)
        assert found.values["train_loss"][number] == pytest.approx(loss, abs=EXACT)
        assert (accuracy is None) == ("train_accuracy" not in found.values)
        if accuracy is not None:
            assert 0 <= accuracy <= 1
            assert found.values["train_accuracy"][number] == pytest.approx(accuracy, abs=EXACT)
    for end, point in zip(found.ends, (a, b), strict=True):
        assert bool(end) == bool(point.buffers)
        if end:
            own = losses_at(case, model, point.vector, point.buffers)[0]
            assert end["train_loss"] == pytest.approx(own, abs=EXACT)
    assert float(found.barrier()) >= 0


def test_a_plane_is_read_where_its_points_are(case: Case) -> None:
    model = case.build(0)
    plane = cl.plane(*points_of(case, model, 3))
    found = cl.surface(model, plane, case.batches, grid=(2, 2), margin=0.0, params=case.params, batch_fn=case.batch_fn)
    for row, y in enumerate(found.y):
        for column, x in enumerate(found.x):
            loss = losses_at(case, model, plane.at([x, y]).vector)[0]
            # The corners lie off the three points, where losses can be larger.
            assert found.values["train_loss"][row, column] == pytest.approx(loss, rel=EXACT, abs=EXACT)


# Curves ---------------------------------------------------------------------------------------------------------------


class AtPoint(nn.Module):
    """A model that computes with given tensors in place of some of its parameters."""

    def __init__(self, model: nn.Module, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.inner, self.tensors = [model], tensors

    def forward(self, *inputs: Any, **named_inputs: Any) -> Any:
        return functional_call(self.inner[0], self.tensors, inputs, named_inputs)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside, without the layers' compilers, whose gradients by other tensors nobody promises."""
    inner = getattr(model, "_orig_mod", model)
    inner = inner.module if isinstance(inner, nn.DataParallel) else inner
    inner = getattr(inner, "_orig_mod", inner)
    for name, child in list(inner.named_children()):
        plain = unwrapped(child) if type(child).__name__ in ("OptimizedModule", "DataParallel") else child
        setattr(inner, name, plain)
        if isinstance(plain, nn.EmbeddingBag):
            plain.sparse = False  # a slice of a vector has no sparse gradient
    return inner


def gradient_of_the_bend(
    case: Case, model: nn.Module, ends: list[Tensor], t: float, batch: Any, decay: float
) -> tuple[float, Tensor]:
    """The loss at t of the chain a, bend, b, and its gradient with the penalty, by autograd through w(t) itself."""
    a, b = ends
    bend = ((a + b) / 2).requires_grad_()
    w = (1 - 2 * t) * a + 2 * t * bend if t < 0.5 else (2 - 2 * t) * bend + (2 * t - 1) * b
    space = cl.WeightSpace(model, case.params)
    tensors = {name: w[span].view(shape) for name, shape, span in space.slices()}
    loss = (case.batch_fn or classification)(AtPoint(model, tensors), batch).loss.mean()
    (loss + decay / 2 * w.square().sum()).backward()
    assert bend.grad is not None
    return loss.item(), bend.grad


def test_a_curve_follows_the_gradient_of_its_bend(case: Case) -> None:
    model = case.build(0)
    a, b = points_of(case, model, 2)
    batch = case.batches[0]
    seen: list[tuple[Tensor, Tensor]] = []

    def watching(network: nn.Module, given: Any) -> Output:
        space = cl.WeightSpace(network, case.params)
        seen.append((space.point(network).vector, torch.get_rng_state()))
        return (case.batch_fn or classification)(network, given)

    curve = cl.connect(
        model, a, b, [batch], epochs=1, lr=1.0, momentum=0.0, weight_decay=0.05, schedule=cl.constant(),
        params=case.params, batch_fn=watching,
    )  # fmt: skip
    w, draws = seen[-1]  # before, a memory format was tried out
    # Where on the segment the model was: the bend starts in its middle.
    t = float((w - a.vector) @ (b.vector - a.vector) / (b.vector - a.vector).square().sum())
    plain = unwrapped(copy.deepcopy(model)).train()
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(draws)  # dropout
        loss, gradient = gradient_of_the_bend(case, plain, [a.vector, b.vector], t, batch, 0.05)
    assert curve.history[-1]["loss"] == pytest.approx(loss, abs=EXACT)
    step = (a.vector + b.vector) / 2 - curve.points[1].vector
    assert float(step.abs().max()) > 0
    assert np.allclose(step.numpy(), gradient.numpy(), rtol=0, atol=EXACT * max(1.0, float(gradient.abs().max())))

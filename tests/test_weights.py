"""Weight space: the order of the vector, what fits a model, and models that come back as they were."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import closerlook as cl
from closerlook.batches import Output, classification
from closerlook.errors import MismatchError, UsageError
from closerlook.views import borrowed
from closerlook.weights import WeightSpace, distance, gram
from conftest import Batch, digit_batches, small_net
from untouched import everything, same


class Tied(nn.Module):
    """An encoder and a decoder that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 4, bias=False)
        self.code = nn.Linear(4, 4)
        self.decoder = nn.Linear(6, 4, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self.encoder(x)) @ self.decoder.weight


def by_hand(model: nn.Module) -> Tensor:
    """The vector of a model: each parameter's numbers in the order in which they are printed."""
    return torch.tensor(
        [number for value in model.parameters() for number in np.asarray(value.detach()).flatten(order="C")],
        dtype=next(model.parameters()).dtype,
    )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_vector_is_in_logical_order(memory_format: torch.memory_format) -> None:
    model = small_net().to(memory_format=memory_format)
    space = WeightSpace(model)
    assert space.size == sum(value.numel() for value in model.parameters())
    assert space.names == tuple(name for name, _ in model.named_parameters())
    assert torch.equal(space.point(model).vector, by_hand(model))
    with borrowed(model, space) as views:
        # A channels_last weight is a permuted slice of the buffer: encode and decode must know.
        assert torch.equal(views.decode(views.buffer), by_hand(small_net()))
        assert torch.equal(views.encode(by_hand(small_net())), views.buffer)
        assert torch.equal(views.buffer, by_hand(small_net())) == (memory_format == torch.contiguous_format)


def test_a_point_brings_its_buffers_and_shares_no_memory() -> None:
    model = small_net()
    space = WeightSpace(model)
    point = space.point(model)
    assert set(point.buffers) == {name for name, _ in model.named_buffers()}
    expected, mean = point.vector.clone(), point.buffers["norm1.running_mean"].clone()
    model.norm1.running_mean.zero_()
    for value in model.parameters():
        value.data.zero_()
    assert torch.equal(point.vector, expected)
    assert torch.equal(point.buffers["norm1.running_mean"], mean)


def test_frozen_parameters_are_coordinates() -> None:
    model = small_net()
    model.conv1.weight.requires_grad_(False)
    assert WeightSpace(model).size == WeightSpace(small_net()).size


def test_a_pattern_restricts_the_space() -> None:
    model = small_net()
    space = WeightSpace(model, params="norm*.bias")
    assert space.names == ("norm1.bias", "norm2.bias")
    assert torch.equal(space.point(model).vector, torch.cat([model.norm1.bias, model.norm2.bias]).detach())
    with pytest.raises(UsageError, match=r"no parameter matches 'tail\.\*'; the names are conv1\.weight"):
        WeightSpace(model, params="tail.*")
    with pytest.raises(UsageError, match="the names are none"):
        WeightSpace(nn.Identity())


def test_every_source_gives_the_same_point(tmp_path: Path) -> None:
    model = small_net()
    space = WeightSpace(model)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "b.pth")
    save_file(model.state_dict(), tmp_path / "c.safetensors")
    backwards = dict(reversed(model.state_dict().items()))
    expected = by_hand(model)
    for source in (model, model.state_dict(), backwards, expected, space.point(model), expected[None]):
        assert torch.equal(space.point(source).vector, expected)
    for path in sorted(tmp_path.iterdir()):
        for source in (path, str(path)):
            point = space.point(source)
            assert torch.equal(point.vector, expected)
            assert torch.equal(point.buffers["norm2.running_var"], model.norm2.running_var)
            assert path.name in point.origin
            assert "sha256:" in point.origin


def test_types_are_not_mixed() -> None:
    model = small_net()
    state = {**model.state_dict(), "head.weight": model.head.weight.detach().double()}
    with pytest.raises(MismatchError, match=r"mixes torch\.float32 \(head\.bias\), torch\.float64 \(head\.weight\)"):
        WeightSpace(model).point(state)
    model.head.double()
    space = WeightSpace(model)
    with (
        pytest.raises(UsageError, match=r"head\.weight is torch\.float64 on cpu, others torch\.float32"),
        borrowed(model, space),
    ):
        pass
    assert model.conv1.weight.shape == (6, 1, 3, 3)
    with borrowed(small_net(), WeightSpace(small_net())) as views, pytest.raises(MismatchError, match="convert one"):
        views.encode(torch.zeros(852, dtype=torch.float64))


def test_vectors_of_another_model_and_other_things_are_refused() -> None:
    space = WeightSpace(small_net())
    with pytest.raises(MismatchError, match="a vector of 5 entries for a space of 852"):
        space.point(torch.zeros(5))
    with pytest.raises(MismatchError, match="a vector of 5 entries"):
        space.point(cl.Point(torch.zeros(5)))
    with pytest.raises(UsageError, match="cannot read weights from a int"):
        space.point(3)


def test_tied_weights_are_one_set_of_coordinates_with_two_names() -> None:
    model = Tied()
    space = WeightSpace(model)
    assert space.names == ("encoder.weight", "code.weight", "code.bias")
    assert space.size == 24 + 16 + 4
    moved = space.point(space.point(model).vector + 1)
    state = space.state_dict(moved)
    assert set(state) == set(model.state_dict())
    assert torch.equal(state["decoder.weight"], state["encoder.weight"])
    fresh = Tied()
    fresh.load_state_dict(state)
    assert torch.equal(fresh.decoder.weight, model.encoder.weight + 1)
    with borrowed(model, space) as views:
        views.buffer.zero_()
        assert not model.decoder.weight.any()
    assert torch.equal(fresh.decoder.weight, model.decoder.weight + 1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_state_dict_loads_back_into_the_model(memory_format: torch.memory_format) -> None:
    model = small_net(1).to(memory_format=memory_format)
    state = WeightSpace(model).state_dict(WeightSpace(model).point(model))
    other = small_net(2).to(memory_format=memory_format)
    other.load_state_dict(state)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert set(WeightSpace(model, "head.*").state_dict(cl.Point(torch.zeros(330)))) == {"head.weight", "head.bias"}


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=4), min_size=1, max_size=4), st.integers(1, 3))
def test_encode_and_decode_are_inverse_for_any_strides(shapes: list[list[int]], rows: int) -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for number, shape in enumerate(shapes):
                # Logical axes in reverse order of memory.
                value = torch.rand(shape[::-1]).permute(tuple(reversed(range(len(shape)))))
                self.register_parameter(f"p{number}", nn.Parameter(value))

    model = Strange()
    space = WeightSpace(model)
    with borrowed(model, space) as views:
        many = torch.arange(float(rows * space.size)).reshape(rows, space.size)
        encoded = torch.stack([views.encode(row) for row in many])
        # Rows of a matrix start somewhere inside its memory.
        for row, expected in zip(encoded, many, strict=True):
            assert torch.equal(views.decode(row), expected)
        views.buffer.copy_(encoded[0])
        assert torch.equal(by_hand(model), many[0])


def test_a_gradient_that_left_the_buffer_is_noticed() -> None:
    model = small_net()
    with borrowed(model, WeightSpace(model), gradients=True) as views:
        classification(model, digit_batches()[0]).loss.mean().backward()
        views.check_gradients()
        assert views.gradient is not None
        assert views.gradient.abs().sum() > 0
        model.zero_grad(set_to_none=True)
        with pytest.raises(UsageError, match=r"zero_grad\(set_to_none=True\).*gradient_as_bucket_view=False"):
            views.check_gradients()
        classification(model, digit_batches()[0]).loss.mean().backward()
        with pytest.raises(UsageError, match="no longer lies in the flat buffer"):
            views.check_gradients()


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_inner_products_run_in_float64(chunk: int) -> None:
    source = torch.Generator().manual_seed(0)
    vectors = [torch.randn(50, generator=source) + 100 for _ in range(3)]
    origin = torch.randn(50, generator=source)
    differences = torch.stack([vector.double() - origin.double() for vector in vectors])
    # 50 products of one sign in float64; differences of float32 numbers of such unlike size would lose six digits.
    assert torch.allclose(gram(vectors, origin, chunk), differences @ differences.T, rtol=1e-14, atol=0)
    assert distance(vectors[0], origin) == pytest.approx(float(differences[0].norm()), rel=1e-14)


# The caller's things -------------------------------------------------------------------------------------------------


class Drawing(nn.Module):
    """A network with everything that must come back: norms, dropout, a buffer that is replaced, and its own draws."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()
        self.dropout = nn.Dropout(0.3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("none", None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1  # another tensor, not the same one changed
        return self.dropout(self.net(x)) + 0 * torch.rand(1)


def prepared(shuffle: bool = True) -> tuple[Drawing, DataLoader, list[int]]:
    """A model in mixed modes, with some gradients, a frozen weight and hooks; a loader; the hook's counter."""
    model = Drawing().to(memory_format=torch.channels_last)
    inputs, targets = (torch.cat(part) for part in zip(*digit_batches(), strict=True))
    seeded = torch.Generator().manual_seed(4)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=32, shuffle=shuffle, generator=seeded)
    model.train()
    model.net.norm2.eval()
    model.net.head.weight.grad = torch.full_like(model.net.head.weight, 2.0)
    model.net.conv2.bias.requires_grad_(False)
    model.net.norm1.momentum = None
    calls: list[int] = []
    model.net.head.register_forward_hook(lambda *_: calls.append(1))
    return model, loader, calls


class BrokenError(Exception):
    """Raised by a batch function on purpose."""


def failing(at: int) -> Callable[[nn.Module, Batch], Output]:
    calls = []

    def batch_fn(model: nn.Module, batch: Batch) -> Output:
        calls.append(1)
        output = classification(model, batch)
        if len(calls) == at:
            raise BrokenError
        return output

    return batch_fn


def ends(model: nn.Module, count: int) -> list[cl.Point]:
    source, middle = torch.Generator().manual_seed(1), WeightSpace(model).point(model)
    moves = [0.1 * torch.randn(middle.vector.shape, generator=source) for _ in range(count)]
    return [cl.Point(middle.vector + move, copy.deepcopy(middle.buffers)) for move in moves]


def run_profile(model: nn.Module, loader: DataLoader, **options: Any) -> None:
    cl.profile(model, cl.line(*ends(model, 2)), {"train": loader}, points=3, **options)


def run_surface(model: nn.Module, loader: DataLoader, **options: Any) -> None:
    cl.surface(model, cl.plane(*ends(model, 3)), {"train": loader}, grid=(2, 2), **options)


def run_connect(model: nn.Module, loader: DataLoader, **options: Any) -> None:
    cl.connect(model, *ends(model, 2), loader, epochs=2, **options)


def run_evaluate(model: nn.Module, loader: DataLoader, **options: Any) -> None:
    cl.evaluate(model, loader, **options)


def run_train(model: nn.Module, loader: DataLoader, **options: Any) -> None:
    cl.train(model, loader, lr=0.1, epochs=2, validation=loader, **options)


# The number of the call that fails: in the probe, the pass for statistics or the one that reads; in each epoch.
CASES = [
    (run_profile, (3, 6, 8, 11, 20)),
    (run_surface, (2, 7, 10)),
    (run_connect, (1, 5)),
    (run_evaluate, (1, 3)),
    (run_train, (1, 4, 8)),
]


@pytest.mark.parametrize(("call", "at"), [(call, at) for call, places in CASES for at in (None, *places)])
def test_the_callers_things_come_back_as_they_were(call: Callable[..., None], at: int | None) -> None:
    # Reading refuses a loader that shuffles.
    model, loader, calls = prepared(shuffle=call not in (run_profile, run_surface))
    torch.manual_seed(3)
    before = everything(model, loader)
    if at is None:
        call(model, loader)
    else:
        with pytest.raises(BrokenError):
            call(model, loader, batch_fn=failing(at))
    after = everything(model, loader)
    for name, value in before.items():
        assert same(value, after[name]), name
    # The model works on, and its own hook is the only one.
    reached = len(calls)
    classification(model, digit_batches()[0]).loss.mean().backward()
    assert len(calls) == reached + 1


def test_a_restricted_space_trains_and_moves_only_its_part() -> None:
    model, loader, _ = prepared()
    space = WeightSpace(model, "net.head.*")
    a, b = (cl.Point(space.point(model).vector + move) for move in (1, -1))
    torch.manual_seed(3)
    before = everything(model, loader)
    curve = cl.connect(model, a, b, loader, epochs=1, params="net.head.*")
    assert curve.points[1].vector.shape == (330,)
    # The gradient that another parameter had is neither lost nor added to.
    assert all(same(value, everything(model, loader)[name]) for name, value in before.items())

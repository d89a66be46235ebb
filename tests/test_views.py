"""Flat views and the ways to break them; one flat optimizer against PyTorch's own; memory by count."""

import copy
import gc
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

import closerlook as cl
from closerlook.batches import Feed, Output, classification
from closerlook.errors import UsageError
from closerlook.evaluation import read
from closerlook.training.flat import FlatOptimizer
from closerlook.training.optimizers import optimizer_factory
from closerlook.views import borrowed
from closerlook.weights import WeightSpace
from conftest import Batch, digit_batches, small_net

connect_module, network_module = (
    import_module(f"closerlook.{name}") for name in ("landscape.connect", "training.network")
)


# Memory formats


class Shapes(nn.Module):
    """Weights with 0 to 5 axes."""

    def __init__(self) -> None:
        super().__init__()
        for axes in range(6):
            self.register_parameter(f"axes{axes}", nn.Parameter(torch.rand([2, 3, 4, 5, 6][:axes])))


FORMATS = [torch.contiguous_format, torch.channels_last, torch.preserve_format]


@pytest.mark.parametrize("own", FORMATS[:2])
@pytest.mark.parametrize("asked", FORMATS)
def test_the_format_asked_for_decides_the_strides(own: torch.memory_format, asked: torch.memory_format) -> None:
    model = Shapes()
    if own == torch.channels_last:
        model.axes4.data = model.axes4.data.to(memory_format=torch.channels_last)
        model.axes5.data = model.axes5.data.to(memory_format=torch.channels_last_3d)
    before = {name: (value.clone(), value.stride(), value.data_ptr()) for name, value in model.named_parameters()}
    last = (own if asked == torch.preserve_format else asked) == torch.channels_last
    space = WeightSpace(model)
    with borrowed(model, space, memory_format=asked) as views:
        assert model.axes4.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        assert model.axes5.is_contiguous(memory_format=torch.channels_last_3d if last else torch.contiguous_format)
        assert model.axes3.is_contiguous()
        for name, (value, _, _) in before.items():
            assert torch.equal(model.get_parameter(name), value)
        vector = torch.rand(space.size)
        assert torch.equal(views.decode(views.encode(vector)), vector)
        views.buffer.copy_(views.encode(vector))
        assert torch.equal(space.point(model).vector, vector)
        views.buffer.zero_()
    for name, (value, stride, pointer) in before.items():
        found = model.get_parameter(name)
        assert torch.equal(found, value)
        assert (found.stride(), found.data_ptr()) == (stride, pointer)


@pytest.mark.parametrize("own", FORMATS[:2])
@pytest.mark.parametrize("call", ["train", "connect"])
def test_results_do_not_depend_on_the_layout_in_which_the_model_came(call: str, own: torch.memory_format) -> None:
    a, b = small_net(1), small_net(2)
    found = []
    for memory_format in (torch.contiguous_format, own):
        model = small_net().to(memory_format=memory_format)
        strides = [value.stride() for value in model.parameters()]
        if call == "train":
            found.append(cl.train(model, digit_batches(), lr=0.1, epochs=2).point.vector)
        else:
            found.append(cl.connect(model, a, b, digit_batches(), epochs=2, lr=0.1).points[1].vector)
        assert [value.stride() for value in model.parameters()] == strides
    assert torch.equal(*found)


def test_a_network_of_views_trains_and_gets_a_curve() -> None:
    """It fails under channels_last: its layout is contiguous, and the numbers are those of asking for that."""

    def views(seed: int) -> nn.Module:
        model = small_net(seed)
        model.flatten = nn.Module()
        model.flatten.forward = lambda maps: maps.view(len(maps), -1)  # type: ignore[method-assign]
        return model

    with pytest.raises(RuntimeError, match="view size is not compatible"):
        classification(views(0).to(memory_format=torch.channels_last), digit_batches()[0])
    settings_of: dict[str, Any] = {"epochs": 1, "lr": 0.1}
    trained = [
        cl.train(views(0), digit_batches(), memory_format=asked, **settings_of).point.vector for asked in FORMATS[:2]
    ]
    assert torch.equal(*trained)
    bent = [
        cl.connect(*map(views, range(3)), digit_batches(), memory_format=asked, **settings_of).points[1].vector
        for asked in FORMATS[:2]
    ]
    assert torch.equal(*bent)


# Traps


def test_a_copy_of_a_borrowed_model_is_a_model_of_its_own(tmp_path: Path) -> None:
    model = small_net().to(memory_format=torch.channels_last)
    with borrowed(model, WeightSpace(model)) as views:
        twin = copy.deepcopy(model)
        views.buffer.zero_()
        assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), small_net().parameters(), strict=True))
        twin.conv1.weight.data.fill_(3.0)
        assert not views.buffer.any()
    torch.save(twin.conv1.weight, tmp_path / "one.pt")
    assert (tmp_path / "one.pt").stat().st_size < 4 * 852  # one weight, not the buffer behind it


@pytest.mark.parametrize("call", ["train", "connect"])
def test_a_conversion_inside_a_training_is_an_error_and_not_a_standstill(call: str) -> None:
    def converting(model: nn.Module, batch: Batch) -> Output:
        model.double()
        return classification(model, (batch[0].double(), batch[1]))

    model = small_net()
    with pytest.raises(UsageError, match=r"something called \.to\(\)"):
        run(call, model, batch_fn=converting)
    assert all(value.dtype == torch.float32 for value in model.parameters())
    assert torch.equal(cl.evaluate(model, digit_batches(), outputs=True).outputs, outputs_of(small_net()))


def outputs_of(model: nn.Module) -> Tensor:
    return read(model.eval(), digit_batches(), Feed(torch.device("cpu")), keep_outputs=True).outputs


def run(call: str, model: nn.Module, **options: Any) -> Tensor:
    """The trained vector."""
    settings_of = {"epochs": 2, "lr": 0.1, "weight_decay": 0.01, **options}
    if call == "train":
        return cl.train(model, digit_batches(), momentum=0.9, **settings_of).point.vector
    a, b = (copy.deepcopy(model) for _ in range(2))
    for number, end in enumerate((a, b)):
        for value in end.parameters():
            value.data += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(number))
    return cl.connect(model, a, b, digit_batches(), **settings_of).points[1].vector


@pytest.mark.parametrize("call", ["train", "connect"])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_a_callers_autocast_region_reaches_neither_pass(call: str, autocast: torch.dtype | None) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = run(call, small_net(), autocast=autocast)
    assert torch.equal(inside, run(call, small_net(), autocast=autocast))


def test_low_precision_weights_do_not_survive_a_move_of_the_buffer() -> None:
    model, feed = small_net().eval(), Feed(torch.device("cpu"), autocast=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16), borrowed(model, WeightSpace(model)) as views:
        first = feed(model, digit_batches()[0]).loss
        views.buffer.mul_(2)
        assert not torch.equal(feed(model, digit_batches()[0]).loss, first)


@pytest.mark.parametrize("call", ["train", "connect"])
def test_weights_are_the_same_in_both_passes(call: str) -> None:
    """Autograd would not notice a change of the buffer in between: its gradients would be those of no function."""
    forward: list[Tensor] = []
    compared: list[bool] = []

    def watching(model: nn.Module, batch: Batch) -> Output:
        forward.append(torch.cat([value.detach().reshape(-1) for value in model.parameters()]))
        output = classification(model, batch)
        if output.loss.requires_grad:
            output.loss.register_hook(lambda grad: look(model))
        return output

    def look(model: nn.Module) -> None:
        now = torch.cat([value.detach().reshape(-1) for value in model.parameters()])
        compared.append(torch.equal(now, forward[-1]))

    run(call, small_net(), batch_fn=watching)
    assert len(compared) >= 6
    assert all(compared)
    assert not torch.equal(forward[-1], forward[-2])


def test_ddp_must_not_move_the_gradients(tmp_path: Path) -> None:
    """With gradient_as_bucket_view the gradients leave the buffer, and weights would never move."""
    distributed = torch.distributed
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        for bucket_view in (False, True):
            model = small_net()
            wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=bucket_view)
            with borrowed(wrapped, WeightSpace(wrapped), gradients=True) as views:
                classification(wrapped, digit_batches()[0]).loss.mean().backward()
                if bucket_view:
                    with pytest.raises(UsageError, match="gradient_as_bucket_view=False"):
                        views.check_gradients()
                else:
                    views.check_gradients()
                    assert views.gradient is not None
                    assert views.gradient.any()
    finally:
        distributed.destroy_process_group()


# Networks of other kinds, against the loop that a PyTorch user writes


class Tied(nn.Module):
    """Pixels to a code and back by the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = (nn.Linear(64, 5, bias=False) for _ in range(2))
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.encoder(x.flatten(1))) @ self.decoder.weight


class Recurrent(nn.Module):
    """Rows of an image as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 5, num_layers=2, batch_first=True)
        self.head = nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.squeeze(1))[0][:, -1])


class Unused(nn.Module):
    """One layer never gets a gradient, another in every second step alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.never, self.sometimes = nn.Linear(64, 10), nn.Linear(64, 7), nn.Linear(64, 10)
        self.last = nn.Linear(10, 10)
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        hidden = self.first(x.flatten(1))
        return self.last(hidden + self.sometimes(x.flatten(1)) if self.steps % 2 else hidden)


def made(kind: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind()


def plain(model: nn.Module, make: Callable[[Iterable[Tensor]], Optimizer], epochs: int) -> Tensor:
    model = copy.deepcopy(model).train()
    optimizer = make(model.parameters())
    for _ in range(epochs):
        for batch in digit_batches():
            optimizer.zero_grad()
            classification(model, batch).loss.mean().backward()
            optimizer.step()
    return WeightSpace(model).point(model).vector


@pytest.mark.parametrize("kind", [Tied, Recurrent, Unused])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_is_a_plain_loop_to_the_last_bit(kind: Callable[[], nn.Module], momentum: float) -> None:
    rates = {"lr": 0.1, "momentum": momentum, "weight_decay": 0.01}
    model = made(kind)
    trained = cl.train(model, digit_batches(), epochs=3, **rates).point.vector
    assert torch.equal(trained, plain(model, lambda values: torch.optim.SGD(values, **rates), 3))


def test_a_weight_that_never_gets_a_gradient_stays_under_adam_too() -> None:
    model = made(Unused)
    trained = cl.train(model, digit_batches(), "adam", lr=0.01, weight_decay=0.1, epochs=3)
    state = WeightSpace(model).state_dict(trained.point)
    for name, value in model.named_parameters():
        assert torch.equal(state[name], value) == name.startswith("never"), name


@pytest.mark.parametrize("kind", [Tied, Recurrent])
def test_a_curve_goes_through_any_network(kind: Callable[[], nn.Module]) -> None:
    model, a, b = (made(kind, seed) for seed in range(3))
    curve = cl.connect(model, a, b, digit_batches(), epochs=2, lr=0.1)
    space = WeightSpace(model)
    assert torch.equal(curve.at(0).vector, space.point(a).vector)
    assert torch.equal(curve.at(1).vector, space.point(b).vector)
    middle = (space.point(a).vector + space.point(b).vector) / 2
    assert torch.dist(curve.points[1].vector, middle) > 0.01
    assert torch.equal(space.point(model).vector, space.point(made(kind)).vector)


def test_frozen_weights_are_coordinates_of_a_curve_and_come_back_frozen() -> None:
    model = small_net()
    model.conv1.weight.requires_grad_(False)
    curve = cl.connect(model, small_net(1), small_net(2), digit_batches(), epochs=2, lr=0.1)
    middle = (small_net(1).conv1.weight + small_net(2).conv1.weight).detach() / 2
    assert torch.dist(WeightSpace(model).state_dict(curve.points[1])["conv1.weight"], middle) > 0.01
    assert [value.requires_grad for value in model.parameters()][:2] == [False, True]


# One gradient for all rows


NAMED: dict[str, tuple[Callable[[Iterable[Tensor]], Optimizer], Callable[[Iterable[Tensor]], Optimizer]]] = {
    "sgd": (
        optimizer_factory("sgd", 0.1, momentum=0.9, weight_decay=0.01),
        lambda values: torch.optim.SGD(values, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "sgd without momentum": (
        optimizer_factory("sgd", 0.1, momentum=0.0, weight_decay=0.0), lambda values: torch.optim.SGD(values, lr=0.1),
    ),
    "adam": (
        optimizer_factory("adam", 0.1, momentum=0.0, weight_decay=0.01),
        lambda values: torch.optim.Adam(values, lr=0.1, weight_decay=0.01),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=20)
@given(size=st.integers(1, 200), count=st.integers(1, 4), chunk=st.sampled_from([16, 48, 1 << 20, None]))
def test_rows_in_chunks_move_as_one_matrix_of_gradients_does(
    name: str, dtype: torch.dtype, size: int, count: int, chunk: int | None
) -> None:
    """The same bits as one optimizer on [count, size] with a gradient of as many rows, also after save and load."""
    source = torch.Generator().manual_seed(size)
    start = torch.randn(count, size, generator=source, dtype=dtype)
    rows, matrix = [row.clone() for row in start], nn.Parameter(start.clone())
    gradient = torch.empty(size, dtype=dtype)
    flat, whole = FlatOptimizer(NAMED[name][0], rows, gradient, chunk), NAMED[name][1]([matrix])
    for step in range(6):
        if step == 3:
            state = flat.tensors()
            assert all(value.shape in ((), (size,)) for value in state.values())
            flat = FlatOptimizer(NAMED[name][0], rows, gradient, chunk)
            flat.load(state)
        drawn, shares = (torch.randn(n, generator=source, dtype=dtype) for n in (size, count))
        gradient.copy_(drawn)
        flat.coefficients = shares.tolist() if step else [1.0] * count
        matrix.grad = torch.stack([drawn * c for c in flat.coefficients])
        for group in (*flat.param_groups, *whole.param_groups):
            group["lr"] = 0.1 / (step + 1)
        flat.step()
        whole.step()
    assert torch.equal(torch.stack(rows), matrix.detach())


@pytest.mark.parametrize("name", ["sgd", "sgd without momentum"])
@settings(max_examples=20)
@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    used=st.lists(st.integers(0, 63), min_size=4, max_size=4),
    chunk=st.sampled_from([16, 1 << 20, None]),
)
def test_untouched_ranges_stay_as_parameters_without_a_gradient_do(
    name: str, widths: list[int], used: list[int], chunk: int | None
) -> None:
    source = torch.Generator().manual_seed(sum(widths))
    start = torch.randn(sum(widths), generator=source)
    row, gradient, parts = (
        start.clone(),
        torch.empty(sum(widths)),
        [nn.Parameter(v) for v in start.clone().split(widths)],
    )
    flat, separate = FlatOptimizer(NAMED[name][0], [row], gradient, chunk), NAMED[name][1](parts)
    spans = [slice(sum(widths[:number]), sum(widths[: number + 1])) for number in range(len(widths))]
    for bits in used:
        drawn = torch.randn(sum(widths), generator=source)
        touched = [bool(bits >> number & 1) for number in range(len(widths))]
        flat.untouched = [span for span, yes in zip(spans, touched, strict=True) if not yes]
        gradient.copy_(drawn)
        for part, span, yes in zip(parts, spans, touched, strict=True):
            part.grad = drawn[span].clone() if yes else None
        flat.step()
        separate.step()
    assert torch.equal(row, torch.cat([part.detach() for part in parts]))


@pytest.mark.parametrize("bends", [1, 3])
@pytest.mark.parametrize("kind", ["polychain", "bezier"])
def test_the_named_optimizer_of_a_curve_gives_the_bits_of_a_factory(
    kind: Any, bends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect_module, "CHUNK", 64)

    def factory(values: Iterable[Tensor]) -> Optimizer:
        return torch.optim.SGD(values, lr=0.1, momentum=0.9)

    model, a, b = (small_net(seed) for seed in range(3))
    named = cl.connect(model, a, b, digit_batches(), kind, bends, epochs=3, lr=0.1, momentum=0.9)
    own = cl.connect(model, a, b, digit_batches(), kind, bends, epochs=3, optimizer=factory)
    for one, other in zip(named.points, own.points, strict=True):
        assert torch.equal(one.vector, other.vector)
    assert named.history == own.history


# Memory


@pytest.fixture
def floats() -> Iterator[Callable[[], int]]:
    """Number of floats that tensors reach, of those that the test makes."""

    def count() -> int:
        gc.collect()
        tensors = [found for found in gc.get_objects() if issubclass(type(found), Tensor)]
        floating = [value.untyped_storage() for value in tensors if value.dtype == torch.float32]
        storages = {storage.data_ptr(): storage.nbytes() for storage in floating}
        return sum(storages.values()) // 4

    gc.collect()
    gc.freeze()  # what was there before is not looked through again and again
    yield count
    gc.unfreeze()


def wide() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 24, 3), nn.Flatten(), nn.Linear(24 * 16, 10))


@pytest.mark.parametrize(
    ("ends_as", "memory_format", "copied"),
    [("path", torch.channels_last, 2), ("point", torch.channels_last, 2), ("point", torch.contiguous_format, 0)],
)
@pytest.mark.parametrize("bends", [1, 3])
def test_a_curve_holds_its_points_momenta_weights_and_one_gradient(
    bends: int, ends_as: str, memory_format: torch.memory_format, copied: int, floats: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(connect_module, "CHUNK", 16)
    model, loader = made(wide), digit_batches(8, 8)
    size = WeightSpace(model).size
    for seed in (1, 2):
        torch.save(made(wide, seed).state_dict(), tmp_path / f"{seed}.pt")
    ends: list[Any] = [tmp_path / "1.pt", tmp_path / "2.pt"]
    # A caller's own points are read where they lie, if they lie as the weights do.
    ends = [WeightSpace(model).point(end) for end in ends] if ends_as == "point" else ends
    before, seen = floats(), list[int]()
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "epochs": 3, "memory_format": memory_format}
    options["observers"] = [lambda tick: seen.append(floats() - before)]
    cl.train(model, loader, **options)
    cl.connect(model, *ends, loader, "bezier", bends, **options)
    network, curve = seen[2], seen[6]
    assert network == pytest.approx(4 * size, rel=0.03)  # weights, gradient, momentum; the first snapshot
    snapshot = bends - 1  # by how many vectors that of a curve is larger
    assert curve - network == pytest.approx((bends + copied + bends - 1 + snapshot) * size, rel=0.03)

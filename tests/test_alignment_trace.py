"""Networks of many kinds: their hidden units are found, and permuting these changes nothing; the rest is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import closerlook as cl
from closerlook.activations.forward import Forward
from closerlook.alignment import Symmetry, TraceError, trace
from closerlook.alignment.assignment import best_order
from closerlook.errors import MismatchError, UsageError
from closerlook.models import build
from conftest import small_net

CPU = Forward(torch.device("cpu"))
IMAGES, ROWS = (3, 2, 8, 8), (3, 12)


class Residual(nn.Module):
    """A stream that a branch adds to, with an even narrower path beside it (squeeze and excitation)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.narrow, self.wide, self.head = nn.Linear(8, 3), nn.Linear(3, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        gate = torch.sigmoid(self.wide(functional.relu(self.narrow(x.mean((2, 3))))))
        x = x + functional.relu_(self.branch(x)) * gate[:, :, None, None]
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Concatenated(nn.Module):
    """Channels that are concatenated, read by grouped, depthwise and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 8, 3)
        self.depthwise, self.mixed = nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 8, 1)
        self.grouped, self.up = nn.Conv2d(8, 12, 3, groups=4), nn.ConvTranspose2d(12, 6, 2, groups=2)
        self.norm, self.head = nn.GroupNorm(2, 6), nn.Linear(6 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([functional.gelu(self.one(x)), self.two(x).relu()], 1)
        x = self.grouped(self.mixed(self.depthwise(x).relu()).relu()).relu()
        return self.head(self.norm(self.up(x)).relu().view(len(x), -1))


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder transposed, beside a gate, layer norm and scales of single units."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.norm = nn.Linear(12, 10), nn.LayerNorm(10)
        self.gated, self.scale = nn.Linear(10, 12), nn.Parameter(torch.rand(6))
        self.back = nn.Linear(6, 10)
        self.unused = nn.Parameter(torch.rand(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.silu(self.norm(self.encoder(x)))
        hidden = self.back(functional.glu(self.gated(hidden), 1) * self.scale)
        return hidden.mul(2).clamp(-1, 1) @ self.encoder.weight


class Attention(nn.Module):
    """Attention that is written out, with heads and tokens: units of a head change places, and heads as wholes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.qkv, self.out, self.head = (nn.Linear(n, m) for n, m in ((4, 6), (6, 24), (8, 6), (6, 3)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.softplus(self.inner(x.unflatten(1, (3, 4))))
        q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        mixed = torch.softmax(q @ k.transpose(2, 3) / 2, -1) @ v
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return self.head(x.amax(1))


class Rest(nn.Module):
    """Operations of many kinds on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([1.0, 0.5] * 4), persistent=False)
        self.conv, self.norm, self.prelu = nn.Conv2d(2, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8)
        self.maxout, self.masked, self.head = nn.Conv2d(8, 12, 1), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.norm(self.conv(x)))
        x = functional.pad(x, (1, 1, 1, 1, 0, 0))[:, :, ::2].repeat(1, 1, 2, 1)
        x = functional.interpolate(self.maxout(x), scale_factor=0.5)
        x = x.view(len(x), 6, 2, *x.shape[2:]).max(2).values
        x = torch.stack([functional.max_pool2d(x, 2), functional.avg_pool2d(x, 2)]).sum(0)
        x = torch.where(x > 0, x, torch.zeros_like(x)) - x.std((2, 3), keepdim=True).expand_as(x)
        x = torch.einsum("nchw,kc->nk", x, self.masked.weight) + self.masked.bias
        return self.head(functional.normalize(x, dim=1) * self.mask)


def spectral() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(12, 6)), nn.Tanh(), nn.Linear(6, 3))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x.unflatten(1, (3, 4)))[0][:, -1])


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.words((x.abs() * 5).long().clamp(0, 19))).mean(1))


class Written(nn.Module):
    """Hidden units that are written into a tensor part by part, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(12, 6), nn.Linear(12, 4), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros(len(x), 12, dtype=x.dtype)
        hidden[:, :6] = self.one(x).tanh()
        hidden[:, 6:10] += self.two(x)
        return self.head(hidden.clamp_(min=-0.5))


class Mixer(nn.Module):
    """Layers over tokens and layers over channels in turn: patches keep their places, units of both kinds do not."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(2, 8, 2, stride=2), nn.LayerNorm(8)
        self.tokens = nn.Sequential(nn.Linear(16, 10), nn.GELU(), nn.Linear(10, 16))
        self.channels, self.head = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(self.norm(x))).mean(1))


class Shuffled(nn.Module):
    """Grouped convolutions with a shuffle between, whose groups of 4 and of 3 channels do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(2, 12, 1), nn.Conv2d(12, 12, 1, groups=3), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(x)).unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)
        return self.head(self.two(x).mean((2, 3)))


class Picked(nn.Module):
    """Hidden units that are read by their numbers, so that their order is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(12, 6), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(x).relu().index_select(1, torch.tensor([0, 2, 2, 5]))
        return self.head(self.two(hidden).relu())


def registered(name: str, **options: Any) -> Callable[[], nn.Module]:
    return partial(build, name, in_channels=2, init="he", **options)


# The maker, the shape of a batch, and the sizes of the groups of units (those of residual streams once).
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[int]]] = {
    "mlp": (lambda: build("mlp", in_features=12, hidden=(7, 5)), ROWS, [7, 5]),
    "vgg": (registered("vgg11", width=0.05, image_size=8), IMAGES, [3, 6, 13, 13, 26, 26, 26, 26, 205, 205]),
    "vgg_bn": (
        registered("vgg11_bn", width=0.05, image_size=8, head="linear"), IMAGES, [3, 6, 13, 13, 26, 26, 26, 26],
    ),
    "vgg of large images": (
        registered("vgg11_bn", width=0.03, image_size=64, head_norm=True), (2, 2, 64, 64),
        [2, 4, 8, 8, 15, 15, 15, 15, 123, 123],
    ),
    "resnet8": (registered("resnet8", width=0.5), IMAGES, [8, 8, 16, 8, 32, 16]),
    "resnet8, group norm": (registered("resnet8", norm="group"), IMAGES, [16, 16, 32, 16, 64, 32]),
    "resnet18": (registered("resnet18", width=0.06), IMAGES, [4, 4, 4, 8, 8, 8, 15, 15, 15, 31, 31, 31]),
    "shallow_cnn": (registered("shallow_cnn", width=0.1, image_size=8), IMAGES, [3, 6, 26, 13]),
    "residual": (Residual, IMAGES, [8, 3]),
    "concatenated": (Concatenated, IMAGES, [4, 8, 2, 2, 2, 3, 3]),
    "tied": (Tied, ROWS, [6, 10]),
    "attention": (Attention, ROWS, [6, 2, 4, 4]),
    "rest": (Rest, IMAGES, [8, 6]),
    "spectral norm": (spectral, ROWS, [6]),
    "recurrent": (Recurrent, ROWS, [6]),
    "words": (Words, ROWS, [6]),
    "written": (Written, ROWS, [6, 4, 2]),
    "picked": (Picked, ROWS, [5]),
    "mixer": (Mixer, IMAGES, [8, 10, 12]),
}  # fmt: skip


def traced(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, Tensor, Symmetry]:
    """A network in float64 with nothing at its initial value, a batch, and its symmetry."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().double().eval()
        for value in model.parameters():
            value.data.add_(torch.randn_like(value) * (0.3 if value.ndim == 1 else 0.3 * value.std()))
        for value in model.buffers():
            if value.is_floating_point() and value.ndim == 1 and value.shape != (8,):
                value.uniform_(0.5, 1.5)
        batch = torch.randn(*shape, dtype=torch.float64)
    return model, batch, trace(model, batch, CPU)


def some_orders(symmetry: Symmetry, seed: int) -> list[np.ndarray]:
    draws = np.random.default_rng(seed)
    return [best_order(draws.standard_normal((group.size, group.size)), group.blocks) for group in symmetry.groups]


@pytest.mark.parametrize("name", NETWORKS)
def test_permuted_units_change_nothing(name: str) -> None:
    make, shape, sizes = NETWORKS[name]
    model, batch, symmetry = traced(make, shape)
    assert [group.size for group in symmetry.groups] == sizes
    assert len({group.name for group in symmetry.groups}) == len(sizes)
    space = cl.WeightSpace(model)
    point, orders = space.point(model), some_orders(symmetry, 1)
    moved = symmetry.moved(space, point, orders)
    with torch.no_grad():
        before, after = model(batch), cl.loaded(model, moved).eval()(batch)
    assert float((before - after).abs().max()) <= 1e-12 * float(before.abs().max())
    assert not torch.equal(point.vector, moved.vector)
    assert before.std() > 1e-6  # a network that answers the same to everything would pass


def test_a_group_is_a_stream_a_padding_or_what_is_read_together() -> None:
    _, _, symmetry = traced(registered("resnet8", norm="group"), IMAGES)
    names = [(group.name.removeprefix("features."), group.size, group.blocks) for group in symmetry.groups]
    # Eight groups of channels: 2 of the stem's 16, 4 of the 32 behind the first padding, 8 of the 64 behind the second.
    assert names == [
        ("conv.weight:0", 16, (2, 4, 8)), ("stage1.block1.branch.conv1.weight:0", 16, (2,)),
        ("stage2.block1.branch.conv1.weight:0", 32, (4,)), ("stage2.block1.branch.conv2.weight:0", 16, (4, 8)),
        ("stage3.block1.branch.conv1.weight:0", 64, (8,)), ("stage3.block1.branch.conv2.weight:0", 32, (8,)),
    ]  # fmt: skip


def test_what_a_forward_pass_does_not_use_stays() -> None:
    model, _, symmetry = traced(Tied, ROWS)
    space = cl.WeightSpace(model)
    moved = cl.loaded(model, symmetry.moved(space, space.point(model), some_orders(symmetry, 2)))
    assert torch.equal(moved.unused, model.unused)  # type: ignore[arg-type]


def test_statistics_follow_their_channel() -> None:
    model = small_net().eval()
    symmetry = trace(model, torch.zeros(2, 1, 8, 8), CPU)
    orders = some_orders(symmetry, 3)
    moved = symmetry.moved(cl.WeightSpace(model), cl.WeightSpace(model).point(model), orders)
    for name in ("norm1.running_mean", "norm1.running_var"):
        assert torch.equal(moved.buffers[name], model.state_dict()[name][orders[0]])
    assert torch.equal(moved.buffers["norm1.num_batches_tracked"], model.norm1.num_batches_tracked)


class Through(nn.Module):
    """Two linear layers with something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.between, self.two = nn.Linear(12, 6), between, nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.between(self.one(x)))


def attention(x: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(*[x[None, None]] * 3)[0, 0]


REFUSED = {
    "aten.sort": lambda x: x.sort(1).values,
    "aten._scaled_dot_product": attention,
    "aten._fft": lambda x: torch.fft.fft(x, dim=1).real,
    "aten.unfold": lambda x: x.unfold(1, 2, 1).sum(2).repeat(1, 2)[:, :6],
    "aten.index": lambda x: x[:, torch.tensor([0, 2, 1, 3, 4, 5])],
}


@pytest.mark.parametrize("operation", REFUSED)
def test_an_operation_without_a_rule_is_named_with_its_layer(operation: str) -> None:
    class Between(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return REFUSED[operation](x)

    model = nn.Sequential(nn.Linear(12, 6), Between(), nn.Linear(6, 2)).eval()
    with pytest.raises(TraceError, match=rf"^1 calls {operation}.* cannot be followed"):
        trace(model, torch.randn(*ROWS), CPU)


def test_groups_that_do_not_nest_are_refused() -> None:
    with pytest.raises(TraceError, match=r"^two calls aten.convolution.*4 units meet groups of 3"):
        trace(Shuffled().eval(), torch.randn(*IMAGES))


def test_recurrent_layers_that_run_as_one_operation_are_refused() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x.unflatten(1, (3, 4)))[0][:, -1])

    with pytest.raises(TraceError, match=r"^lstm calls aten.mkldnn_rnn_layer"):
        trace(Last().eval(), torch.randn(*ROWS), CPU)


ORDERED = {
    "cumsum": lambda x: x.cumsum(1),
    "flip": lambda x: x.flip(1),
    "a constant for each unit": lambda x: x * torch.arange(6.0),
    "every second unit": lambda x: x[:, ::2].repeat(1, 2),
    "the largest unit's number": lambda x: x * x.argmax(1, keepdim=True),
}


@pytest.mark.parametrize("operation", ORDERED)
def test_units_whose_order_matters_stay(operation: str) -> None:
    with pytest.raises(UsageError, match="no hidden units that can change places"):
        trace(Through(ORDERED[operation]).eval(), torch.randn(*ROWS), CPU)


def by_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.cumsum(x.numpy(), axis=1))


def test_what_leaves_pytorch_is_found_by_its_outputs() -> None:
    class Between(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return by_numpy(x)

    layers = [nn.Linear(12, 6), Between(), nn.Linear(6, 2)]
    one, two = nn.Sequential(*layers), nn.Sequential(nn.Linear(12, 6), Between(), nn.Linear(6, 2))
    with pytest.raises(MismatchError, match="first layer that differs is 1: it depends on the order"):
        cl.align(one, one, two, loader=[torch.randn(*ROWS)])


def test_a_network_without_hidden_units_is_refused() -> None:
    with pytest.raises(UsageError, match="no hidden units"):
        trace(nn.Linear(12, 3).eval(), torch.randn(*ROWS), CPU)


def test_outputs_in_containers_stay_and_others_are_refused() -> None:
    @dataclass
    class Answer:
        logits: Tensor
        hidden: Tensor

    class Answering(nn.Module):
        def __init__(self, made: Callable[..., Any]) -> None:
            super().__init__()
            self.one, self.two, self.made = nn.Linear(12, 6), nn.Linear(6, 5), made
            self.head = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Any:
            hidden = self.one(x).relu()
            return self.made(self.head(self.two(hidden).relu()), hidden)

    for made in (Answer, lambda *both: both, lambda logits, hidden: {"logits": logits, "more": [hidden]}):
        symmetry = trace(Answering(made).eval(), torch.randn(*ROWS))
        assert [(group.name, group.size) for group in symmetry.groups] == [("two.weight:0", 5)]
    with pytest.raises(TraceError, match="returned no tensor"):
        trace(Answering(lambda *both: SimpleNamespace(logits=both[0])).eval(), torch.randn(*ROWS))


def test_a_batch_function_that_calls_a_part_alone_is_refused() -> None:
    model = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2)).eval()

    def partly(model: nn.Module, batch: Tensor) -> cl.Output:
        outputs = model[2](model[0](batch).relu())
        return cl.Output(outputs.sum(1), outputs)

    with pytest.raises(TraceError, match="call the model itself"):
        cl.align(model, model, model, loader=[torch.randn(*ROWS)], batch_fn=partly)

"""Networks of every kind with their batches: one table, over which the same properties are tested.

All in float64, small, and with weights drawn from a seed.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from closerlook.batches import BatchFn, Output
from conftest import digit_batches, small_net

DIGITS = digit_batches(48, 20, dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """A network from a seed, batches for it, and how they meet.

    `normed` says that statistics are estimated at every point.
    """

    make: Callable[[], nn.Module]
    batches: list[Any] = field(default_factory=lambda: DIGITS)
    batch_fn: BatchFn | None = None
    params: str = "*"
    normed: bool = False

    def build(self, seed: int) -> nn.Module:
        """The network with weights drawn from `seed`."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.compile's own imports
            torch.manual_seed(seed)
            return self.make().double()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def whole(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def net() -> nn.Sequential:
    return small_net(int(torch.randint(1 << 30, ())))


def plain(*layers: nn.Module, features: int = 64) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 12), *layers, nn.Linear(12, 10))


def on_maps(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Tanh(), nn.Flatten(), nn.Linear(144, 10))


# A language model with one table for its inputs and its outputs -------------------------------------------------------


class Language(nn.Module):
    """A small causal transformer: the output layer is the embedding, a mask and positions are buffers."""

    def __init__(self, words: int = 11, length: int = 6, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.positions = nn.Embedding(length, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 16, dropout=0.1, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, words, bias=False)
        self.output.weight = self.embedding.weight
        self.register_buffer("future", torch.ones(length, length).triu(1).bool(), persistent=False)
        self.register_buffer("place", torch.arange(length))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        hidden = self.embedding(input_ids) + self.positions(self.place)
        hidden = self.block(hidden, src_mask=self.future, src_key_padding_mask=attention_mask == 0)
        return SimpleNamespace(logits=self.output(self.norm(hidden)))


def language(model: nn.Module, batch: dict[str, Tensor]) -> Output:
    """Mean loss per token of each sequence, and the share of tokens that were right."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    targets, seen = batch["labels"][:, 1:], batch["attention_mask"][:, 1:].double()
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    hits = (logits.argmax(2) == targets).double()
    return Output((losses * seen).sum(1) / seen.sum(1), logits, (hits * seen).sum(1) / seen.sum(1))


def sentences(n: int, seed: int) -> dict[str, Tensor]:
    words = whole(11, n, 6, seed=seed)
    mask = (torch.arange(6) < 2 + whole(5, n, 1, seed=seed + 1)).long()
    return {"input_ids": words, "attention_mask": mask, "labels": words}


# Several inputs, other losses -----------------------------------------------------------------------------------------


class Two(nn.Module):
    """Two inputs by position."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 6), nn.Bilinear(5, 3, 6)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.left(x) + self.right(x, z)


def two_inputs(model: nn.Module, batch: Any) -> Output:
    (x, z), y = batch
    outputs = model(x, z)
    return Output(nn.functional.cross_entropy(outputs, y, reduction="none"), outputs, outputs.argmax(1) == y)


def regression(model: nn.Module, batch: Any) -> Output:
    outputs = model(batch[0])
    return Output((outputs - batch[1]).square().mean(1), outputs)


def segmentation(model: nn.Module, batch: Any) -> Output:
    """Mean loss per pixel of each image, and the share of pixels that were right."""
    logits = model(batch["image"])
    losses = nn.functional.cross_entropy(logits, batch["mask"], reduction="none")
    return Output(losses.mean((1, 2)), logits, (logits.argmax(1) == batch["mask"]).double().mean((1, 2)))


# Parts that are trained -----------------------------------------------------------------------------------------------


class Adapted(nn.Module):
    """A frozen layer and a low-rank update of it."""

    def __init__(self, inputs: int, outputs: int, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.lora_a = nn.Parameter(0.3 * torch.randn(rank, inputs))
        self.lora_b = nn.Parameter(0.3 * torch.randn(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T


def frozen_body() -> nn.Sequential:
    model = net()
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    return model


# Buffers and layers of all kinds --------------------------------------------------------------------------------------


class Buffered(nn.Module):
    """Counters, masks, buffers that are not saved, that are none, that are replaced; a tensor kept for later."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.scale = nn.Parameter(torch.randn(()))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mask", torch.arange(64) % 3 > 0)
        self.register_buffer("table", torch.linspace(0.5, 1, 10), persistent=False)
        self.register_buffer("none", None)
        self.register_buffer("mean", torch.zeros(64))
        self.register_parameter("absent", None)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)  # another tensor, not the same one changed
        self.kept = torch.ones(10, dtype=x.dtype) if self.kept is None else self.kept
        return self.head(x * self.mask) * self.table * self.kept * self.scale + self.empty.sum()


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(8, 5, batch_first=True, **options)
        self.head = nn.Linear(5 * (1 + self.rnn.bidirectional), 10)

    def forward(self, x: Tensor) -> Tensor:
        self.rnn.flatten_parameters()
        return self.head(self.rnn(x[:, 0])[0][:, -1])


class Listed(nn.Module):
    """Weights in lists and dicts, used in another order than theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ParameterList([torch.randn(64, 6), torch.randn(6, 10)])
        self.more = nn.ParameterDict({"b": torch.randn(10), "a": torch.randn(1)})

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ self.layers[0]) @ self.layers[1] * self.more["a"] + self.more["b"]


class Shared(nn.Module):
    """One layer under two names, called twice; batch norm called twice too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 10)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.first(x.flatten(1))))
        return self.head(self.norm(self.second(x)))


class Words(nn.Module):
    """Sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.EmbeddingBag(20, 6, sparse=True, mode="sum"), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x))


class Held(nn.Module):
    """A layer whose author called it ``module``."""

    def __init__(self) -> None:
        super().__init__()
        self.module = plain(nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


def normalised(norm: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    model = plain(nn.Tanh())
    model[1], model[3] = norm(model[1]), norm(model[3])
    return model


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


def inner_compiled() -> nn.Sequential:
    model = plain(nn.BatchNorm1d(12), nn.Tanh())
    model[1], model[2] = compiled(model[1]), nn.DataParallel(compiled(model[2]))
    return model


LAST = [([drawn(7, 5, seed=s), drawn(7, 3, seed=s + 9)], whole(6, 7, seed=s)) for s in (1, 2)]
NAMED = [{"x": x, "z": z, "y": y} for (x, z), y in LAST]
TEXTS = [sentences(9, 0), sentences(4, 5)]
IMAGES = [{"image": drawn(5, 2, 6, 4, seed=s), "mask": whole(3, 5, 6, 4, seed=s)} for s in (1, 2)]
BAGS = [(whole(20, 9, 4, seed=s), whole(10, 9, seed=s)) for s in (1, 2)]
SIGNALS = [(drawn(8, 3, 7, seed=s), whole(10, 8, seed=s)) for s in (1, 2)]

CASES: dict[str, Case] = {
    "batch norm": Case(net, normed=True),
    "batch norm [n, c]": Case(lambda: plain(nn.BatchNorm1d(12), nn.Tanh()), normed=True),
    "batch norm [n, c, l]": Case(
        lambda: nn.Sequential(nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4), nn.Tanh(), nn.Flatten(), nn.Linear(24, 10)),
        SIGNALS, normed=True,
    ),
    "batch norm without affine": Case(lambda: on_maps(nn.BatchNorm2d(4, affine=False)), normed=True),
    "batch norm without statistics": Case(lambda: on_maps(nn.BatchNorm2d(4, track_running_stats=False))),
    "batch norm, cumulative": Case(lambda: on_maps(nn.BatchNorm2d(4, momentum=None)), normed=True),
    "group norm": Case(lambda: on_maps(nn.GroupNorm(2, 4))),
    "instance norm": Case(lambda: on_maps(nn.InstanceNorm2d(4, affine=True))),
    "instance norm with statistics": Case(
        lambda: on_maps(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)), normed=True
    ),
    "layer norm": Case(lambda: plain(nn.LayerNorm(12), nn.GELU())),
    "dropout": Case(lambda: plain(nn.Tanh(), nn.Dropout(0.3))),
    "channels last": Case(lambda: on_maps(nn.Identity()).to(memory_format=torch.channels_last)),
    "tied language model": Case(Language, TEXTS, language),
    "two inputs": Case(Two, LAST, two_inputs),
    "inputs by name": Case(Two, NAMED),
    "regression": Case(
        lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)),
        [(drawn(9, 5, seed=s), drawn(9, 3, seed=s + 5)) for s in (1, 2)], regression,
    ),
    "segmentation": Case(
        lambda: nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.Tanh(), nn.Conv2d(6, 3, 1)),
        IMAGES, segmentation,
    ),
    "all frozen": Case(lambda: plain(nn.Tanh()).requires_grad_(False)),
    "frozen but for its head": Case(frozen_body, normed=True),
    "the head of a frozen body": Case(frozen_body, params="head.*", normed=True),
    "adapters": Case(
        lambda: nn.Sequential(nn.Flatten(), Adapted(64, 7), nn.Tanh(), Adapted(7, 10)), params="*lora*"
    ),
    "biases alone": Case(net, params="*.bias", normed=True),
    "buffers of all kinds": Case(Buffered),
    "LSTM": Case(lambda: Recurrent(nn.LSTM, num_layers=2, proj_size=0)),
    "GRU in both directions": Case(lambda: Recurrent(nn.GRU, bidirectional=True)),
    "weight norm": Case(lambda: normalised(weight_norm)),
    "spectral norm": Case(lambda: normalised(spectral_norm), normed=True),
    "orthogonal": Case(lambda: plain(orthogonal(nn.Linear(12, 12), use_trivialization=False), nn.Tanh())),
    "lists of weights": Case(Listed),
    "a shared layer": Case(Shared, normed=True),
    "sparse gradients": Case(Words, BAGS),
    "a layer called module": Case(Held),
    "compiled": Case(lambda: compiled(net()), normed=True),
    "DataParallel": Case(lambda: nn.DataParallel(on_maps(nn.BatchNorm2d(4))), normed=True),
    "DataParallel of compiled": Case(lambda: nn.DataParallel(compiled(on_maps(nn.GroupNorm(2, 4))))),
    "layers compiled and wrapped": Case(inner_compiled, normed=True),
}  # fmt: skip

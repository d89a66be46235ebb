"""The probe: what does not repeat is refused with its cause, what repeats passes, and all comes back as it was."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import closerlook as cl
from closerlook.batches import Feed, Output
from closerlook.data import CropFlip, TensorBatches
from closerlook.errors import LoaderError
from closerlook.evaluation import check_repeatable
from conftest import digit_batches, small_net

FEED = Feed(torch.device("cpu"))
IMAGES, LABELS = (torch.cat(part) for part in zip(*digit_batches(), strict=True))
DATA = TensorDataset(IMAGES, LABELS)


def probe(loader: Any, model: nn.Module | None = None, feed: Feed = FEED, name: str = "test") -> None:
    check_repeatable((model or small_net()).eval(), loader, feed, name)


class Augmented(Dataset):
    """Digits with noise from one of the generators that people draw from."""

    def __init__(self, draw: Callable[[], float], of: str = "x", share: float = 1.0) -> None:
        self.draw, self.of, self.share = draw, of, share

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        x, y = DATA[number]
        noise = self.draw()
        return (x + noise, y) if self.of == "x" and noise < self.share else (x, y)


def of_torch() -> float:
    return float(torch.rand(()))


def of_numpy() -> float:
    return float(np.random.rand())


class RandomLength(IterableDataset):
    """A stream that ends where it likes."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = int(torch.randint(16, 60, ()))
        return iter([DATA[number] for number in range(count)])


class UsedUp:
    """Can be iterated, and has less to give every time."""

    def __init__(self) -> None:
        self.left = digit_batches()

    def __iter__(self) -> Iterator[Any]:
        while len(self.left) > 1:
            yield self.left.pop()


def label_noise() -> Iterator[Any]:
    for x, y in digit_batches():
        yield x, torch.where(torch.rand(len(y)) < 0.3, torch.randint(10, y.shape), y)


class Fresh:
    """A loader from a function that makes an iterator."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return self.make()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def regression(model: nn.Module, batch: Any) -> Output:
    outputs = model(batch[0])
    return Output((outputs[:, 0] - batch[1]).square(), outputs)


CONSTANT = TensorDataset(IMAGES, torch.zeros(96, dtype=torch.long))
FLOATS = TensorDataset(IMAGES, torch.rand(96, generator=seeded()))
AUGMENTED = r"gives other batch\.0 for the same batch\.1 in each pass: random augmentation\. Use the transforms of eval"
REORDERED = r"same examples in another order in each pass: it shuffles\. Pass shuffle=False;"
BATCHES_OF = "begins with batches of "
OTHERS = r"gives other examples in each pass: it shuffles\. "
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "augmented by torch": (lambda: DataLoader(Augmented(of_torch), 16), AUGMENTED),
    "augmented by numpy": (lambda: DataLoader(Augmented(of_numpy), 16), AUGMENTED),
    "augmented by random": (lambda: DataLoader(Augmented(random.random), 16), AUGMENTED),
    "a few augmented": (lambda: DataLoader(Augmented(of_torch, share=0.2), 16), AUGMENTED),
    "augmented by workers": (lambda: DataLoader(Augmented(of_torch), 16, num_workers=1), AUGMENTED),
    "augmented by workers that stay": (
        lambda: DataLoader(Augmented(random.random), 16, num_workers=1, persistent_workers=True),
        AUGMENTED,
    ),
    "other labels": (lambda: Fresh(label_noise), r"gives other batch\.1 for the same batch\.0"),
    "shuffled": (lambda: DataLoader(DATA, 32, shuffle=True), REORDERED),
    "shuffled in one batch": (lambda: DataLoader(DATA, 96, shuffle=True), REORDERED),
    "shuffled by workers": (lambda: DataLoader(DATA, 32, shuffle=True, num_workers=1), REORDERED),
    "shuffled by its own generator": (lambda: DataLoader(DATA, 32, shuffle=True, generator=seeded()), REORDERED),
    "shuffled by a sampler": (lambda: DataLoader(DATA, 32, sampler=RandomSampler(DATA, generator=seeded())), REORDERED),
    "shuffled constants": (lambda: DataLoader(CONSTANT, 48, shuffle=True), REORDERED),
    "shuffled, only the first batches seen": (
        lambda: DataLoader(DATA, 8, shuffle=True),
        OTHERS + "Pass shuffle=False;",
    ),
    "shuffled floats": (lambda: DataLoader(FLOATS, 8, shuffle=True), OTHERS + "Pass shuffle=False;"),
    "shuffled and augmented": (
        lambda: DataLoader(Augmented(of_torch), 32, shuffle=True),
        r"in another order in each pass",
    ),
    "shuffled, the last left out": (
        lambda: DataLoader(DATA, 40, shuffle=True, drop_last=True),
        OTHERS + "With drop_last it also leaves out others each time: pass shuffle=False and drop_last=False",
    ),
    "batches of a shuffling sampler": (
        lambda: DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 40, drop_last=True)),
        OTHERS + "With drop_last",
    ),
    "with replacement": (
        lambda: DataLoader(DATA, 32, sampler=RandomSampler(DATA, replacement=True)),
        OTHERS + "It draws with replacement",
    ),
    "weighted": (
        lambda: DataLoader(DATA, 32, sampler=WeightedRandomSampler(torch.ones(96), 96)),
        OTHERS + "It draws with replacement",
    ),
    "random lengths": (
        lambda: DataLoader(RandomLength(), 16),
        BATCHES_OF + r"16, 16 examples in one pass and 16, 5 in the next: its passes have",
    ),
    "used up": (UsedUp, "gave no batch"),
    "all random": (
        lambda: Fresh(lambda: iter([(torch.rand(8, 1, 8, 8), torch.rand(8))])),
        r"other batch\.0, batch\.1 in each",
    ),
    "empty": (list, "gave no batch"),
    "one-shot": (lambda: iter(digit_batches()), "one-shot iterator"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_repeat_is_refused_with_its_cause(kind: str) -> None:
    make, message = REFUSED[kind]
    feed = Feed(torch.device("cpu"), regression) if kind in ("shuffled floats", "all random") else FEED
    with pytest.raises(LoaderError, match=f"(?s)test .*{message}"):
        probe(make(), feed=feed)


def whole(shuffle: bool) -> TensorBatches:
    augment = CropFlip(padding=1) if shuffle else None
    return TensorBatches(IMAGES, LABELS, 32, shuffle=shuffle, augment=augment, drop_last=shuffle)


@dataclass
class Pair:
    """A batch of a user's own type."""

    x: Tensor
    y: Tensor


def of_pair(model: nn.Module, batch: Pair) -> Output:
    outputs = model(batch.x)
    return Output(nn.functional.cross_entropy(outputs, batch.y, reduction="none"), outputs)


def with_nan() -> list[Any]:
    x, y = digit_batches(32)[0]
    return [(x.clone().index_fill_(0, torch.tensor([3]), torch.nan), y)]


ALLOWED: dict[str, Any] = {
    "a list": digit_batches(),
    "in order": DataLoader(DATA, 32),
    "in order by workers": DataLoader(DATA, 32, num_workers=2),
    "in order, the last left out": DataLoader(DATA, 40, drop_last=True),
    "ours": whole(False),
    "ours, shuffled and augmented": whole(True),
    "shuffled by an epoch's number": DataLoader(DATA, 32, sampler=DistributedSampler(DATA, 1, 0)),
    "numbers that are none": with_nan(),
}


@pytest.mark.parametrize("kind", ALLOWED)
def test_what_repeats_passes(kind: str) -> None:
    probe(ALLOWED[kind])


def test_batches_of_any_structure_are_compared() -> None:
    feed = Feed(torch.device("cpu"), of_pair)
    probe([Pair(*batch) for batch in digit_batches()], feed=feed)
    with pytest.raises(LoaderError, match=r"gives other batch\.x for the same batch\.y"):
        probe(Fresh(lambda: (Pair(x + torch.rand(()), y) for x, y in digit_batches())), feed=feed)
    with pytest.raises(LoaderError, match=r"gives other batch\.2"):
        probe(
            Fresh(lambda: iter([(IMAGES, LABELS, f"text {random.random()}")])),
            feed=Feed(torch.device("cpu"), lambda model, batch: regression(model, batch)),
        )


# The model ------------------------------------------------------------------------------------------------------------


class Wrapping(nn.Module):
    """A network with something after its second layer."""

    def __init__(self, after: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), after)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class AlwaysDrops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class SkipsLayers(nn.Module):
    """Stochastic depth that forgot to ask for the mode: leaves out whole examples."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full((len(x), 1), 0.5))


class NumpyNoise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + float(np.random.rand())


class Counts(nn.Module):
    """Its output depends on a buffer that every call changes; replaced or in place."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls.add_(1) if self.in_place else self.calls + 1
        return x + self.calls


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class OwnGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand((), generator=self.generator)


NOISE = r"the model gives other outputs for one and the same batch of test in eval mode: noise is active, first in "
UNSTEADY: dict[str, tuple[nn.Module, str]] = {
    "dropout in eval mode": (AlwaysDrops(), NOISE + r"net\.2 \(AlwaysDrops\): dropout with training=True"),
    "stochastic depth": (SkipsLayers(), NOISE + r"net\.2 \(SkipsLayers\)"),
    "noise of numpy": (NumpyNoise(), NOISE + r"net\.2 \(NumpyNoise\)"),
    "a buffer changed in place": (Counts(True), r"the buffer net\.2\.calls changes with every call"),
    "a buffer replaced": (Counts(False), r"the buffer net\.2\.calls changes with every call"),
    "an attribute": (Remembers(), "keeps a state outside its buffers"),
    "a generator of its own": (OwnGenerator(), "draws from a generator of its own"),
}


@pytest.mark.parametrize("kind", UNSTEADY)
def test_a_model_that_does_not_repeat_is_refused_with_its_cause(kind: str) -> None:
    after, message = UNSTEADY[kind]
    with pytest.raises(LoaderError, match=message):
        probe(digit_batches(), Wrapping(after))


def test_noise_of_the_batch_function_itself_is_told_apart() -> None:
    def noisy(model: nn.Module, batch: Any) -> Output:
        outputs = model(batch[0])
        return Output(outputs[:, 0] + torch.rand(()), outputs)

    with pytest.raises(LoaderError, match="noise is active, first in the batch function"):
        probe(digit_batches(), feed=Feed(torch.device("cpu"), noisy))


@pytest.mark.parametrize(
    "model",
    [Wrapping(nn.Dropout(0.5)), Wrapping(nn.BatchNorm1d(10, track_running_stats=False)), small_net()],
    ids=["dropout", "batch norm without running statistics", "batch norm"],
)
def test_a_model_that_repeats_passes(model: nn.Module) -> None:
    probe(digit_batches(), model)


BROKEN: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a mean": (lambda loss: Output(loss.mean(), None), r"one loss per example \[n\], not \(\)"),
    "too many": (lambda loss: Output(loss.repeat(7), None), "224 losses, and nothing in the batch has that length"),
    "no output": (lambda loss: loss, r"must return closerlook\.Output\(loss, outputs\), not a Tensor"),
    "a number": (lambda loss: Output(0.5, None), "losses as a floating tensor"),
    "whole numbers": (lambda loss: Output(loss.long(), None), r"floating tensor \[n\], not a tensor of torch\.int64"),
    "one hit": (lambda loss: Output(loss, None, torch.tensor(True)), r"one hit per example \[32\] as correct"),
    "counts": (lambda loss: Output(loss, None, 3 + loss * 0), r"shares of hits in \[0, 1\].*from 3 to 3"),
    "not a number": (lambda loss: Output(loss, None, loss * torch.nan), r"shares of hits in \[0, 1\]"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_batch_function_is_refused_at_once(kind: str) -> None:
    make, message = BROKEN[kind]

    def batch_fn(model: nn.Module, batch: Any) -> Any:
        return make(nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none"))

    with pytest.raises(LoaderError, match=message):
        probe(digit_batches(), feed=Feed(torch.device("cpu"), batch_fn))


# What comes back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "shuffled", "noise"])
def test_generators_and_buffers_come_back(kind: str | None) -> None:
    model = Wrapping(SkipsLayers()) if kind == "noise" else Wrapping(Counts(True)) if kind else small_net()
    model.eval()
    own = seeded()
    loader = DataLoader(DATA, 32, shuffle=kind is not None, generator=own)
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)

    def states() -> list[Any]:
        numbers = [value.tolist() for value in model.state_dict().values()]
        of_numpy_ = str(np.random.get_state())
        return [torch.get_rng_state().tolist(), of_numpy_, random.getstate(), own.get_state().tolist(), numbers]

    before = states()
    if kind is None:
        probe(loader, model)
    else:
        with pytest.raises(LoaderError):
            probe(loader, model)
    assert states() == before
    assert not any(module._forward_hooks for module in model.modules())


def test_the_probe_looks_at_the_beginning_only() -> None:
    made: list[int] = []

    class Counted(Dataset):
        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
            made.append(number)
            return DATA[number % 96]

    probe(DataLoader(Counted(), 8))
    assert len(made) == 2 * 3 * 8


class Shrinking:
    """Every pass ends one batch earlier, long after the probe has seen enough."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(digit_batches(160, 16)[: 11 - self.passes])


@pytest.mark.parametrize("name", ["test", "stats_loader"])
def test_a_loader_that_changes_later_is_noticed_while_it_is_read(name: str) -> None:
    net = small_net()
    loaders = {"test": digit_batches(), "stats_loader": digit_batches(), name: Shrinking()}
    path = cl.line(cl.WeightSpace(net).point(small_net(1)), cl.WeightSpace(net).point(small_net(2)))
    with pytest.raises(LoaderError, match=f"{name} gave .* examples at one point and .* different lengths"):
        cl.profile(net, path, {"test": loaders["test"]}, points=3, stats_loader=loaders["stats_loader"])

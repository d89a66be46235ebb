"""The batch contract: what a loader may be, what comes back as it was, how a batch reaches a model."""

import random
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from closerlook.batches import (
    Feed,
    Output,
    autocast_dtype,
    batches_of,
    check_loader,
    classification,
    copied,
    feed_for,
    generators_kept,
    identical,
    lengths,
    parts,
    seed_all,
    seed_torch,
    tensors_in,
    to_device,
)
from closerlook.data import TensorBatches
from closerlook.errors import LoaderError, UsageError
from closerlook.evaluation import evaluate
from conftest import digit_batches, small_net

CPU = torch.device("cpu")
DATA = TensorDataset(torch.arange(20.0)[:, None], torch.arange(20))
Named = namedtuple("Named", "inputs targets")


def test_a_one_shot_iterator_is_refused_by_name() -> None:
    for one_shot in (iter([1, 2]), (batch for batch in [1, 2]), map(str, [1])):
        with pytest.raises(LoaderError, match=r"stats_loader is a one-shot iterator.*pass list\(stats_loader\)"):
            check_loader(one_shot, "stats_loader")
    with pytest.raises(LoaderError, match="test is a int, not an iterable of batches"):
        check_loader(3, "test")  # type: ignore[arg-type]


@pytest.mark.parametrize("empty", [[], DataLoader(DATA, batch_size=32, drop_last=True)], ids=["list", "drop_last"])
def test_a_loader_without_a_batch_is_refused_by_name(empty) -> None:
    with pytest.raises(LoaderError, match="validation gave no batch"):
        list(batches_of(empty, "validation"))


def loaders() -> dict[str, DataLoader]:
    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    return {
        "unshuffled": DataLoader(DATA, batch_size=4),
        "shuffled": DataLoader(DATA, batch_size=4, shuffle=True),
        "own generator": DataLoader(DATA, batch_size=4, shuffle=True, generator=seeded()),
        "sampler": DataLoader(DATA, batch_size=4, sampler=RandomSampler(DATA, generator=seeded())),
        "batch sampler": DataLoader(
            DATA, batch_sampler=BatchSampler(RandomSampler(DATA, generator=seeded()), 4, drop_last=False)
        ),
    }


@pytest.mark.parametrize("kind", loaders())
@pytest.mark.parametrize("stop", [None, 2])
def test_iterating_leaves_every_generator_as_it_was(kind: str, stop: int | None) -> None:
    loader = loaders()[kind]
    torch.manual_seed(11)
    expected_order, expected_draw = next(iter(loader))[1], torch.rand(3)
    loader = loaders()[kind]
    torch.manual_seed(11)

    def look() -> None:
        for number, _ in enumerate(batches_of(loader)):
            torch.rand(1)  # what a model draws meanwhile is put back as well
            if number == stop:
                raise RuntimeError("stopped")

    if stop is None:
        look()
    else:
        with pytest.raises(RuntimeError, match="stopped"):
            look()
    assert torch.equal(next(iter(loader))[1], expected_order)
    assert torch.equal(torch.rand(3), expected_draw)


def test_two_passes_over_a_shuffled_loader_have_the_same_order() -> None:
    loader = DataLoader(DATA, batch_size=4, shuffle=True)
    first, second = ([batch[1].tolist() for batch in batches_of(loader)] for _ in range(2))
    assert first == second
    assert first[0] != [0, 1, 2, 3]


def test_the_epoch_of_a_loader_is_put_back() -> None:
    loader = TensorBatches(torch.zeros(4, 2), torch.zeros(4), 2, shuffle=True)
    loader.set_epoch(3)
    with generators_kept(loader):
        loader.set_epoch(9)
    assert loader.epoch == 3


def test_moving_a_batch_keeps_its_containers() -> None:
    x, y = torch.ones(2), torch.zeros(2)
    moved = to_device({"pair": Named(x, y), "list": [x, (y, "text")], "n": 3}, torch.device("meta"))
    assert isinstance(moved["pair"], Named)
    assert moved["pair"].targets.is_meta
    assert isinstance(moved["list"], list)
    assert moved["list"][1][0].is_meta
    assert moved["list"][1][1] == "text"
    assert moved["n"] == 3


LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 1])
# -log softmax of the target, by hand.
LOSSES = torch.tensor(
    [
        torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64).exp().sum().log() - 2.0,
        torch.tensor([0.5, 0.5, 3.0], dtype=torch.float64).exp().sum().log() - 0.5,
    ],
    dtype=torch.float64,
)


class Keywords(nn.Module):
    """Takes keywords and returns an object with logits, as language models do."""

    def forward(self, scores: Tensor, scale: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=scores * scale)


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (nn.Identity(), (LOGITS, TARGETS)),
        (nn.Identity(), [LOGITS, TARGETS]),
        (nn.Identity(), Named(LOGITS, TARGETS)),
        (nn.Identity(), {"x": LOGITS, "y": TARGETS}),
        (Keywords(), {"scores": LOGITS, "scale": torch.ones(1), "labels": TARGETS}),
        (Keywords(), {"scores": LOGITS, "scale": torch.ones(1), "targets": TARGETS}),
    ],
)
def test_the_default_takes_pairs_and_dicts(model: nn.Module, batch) -> None:
    output = classification(model, batch)
    assert torch.allclose(output.loss, LOSSES, rtol=0, atol=1e-12)
    assert output.correct is not None
    assert output.correct.tolist() == [True, False]


def test_low_precision_logits_give_losses_in_float32() -> None:
    low = classification(nn.Identity(), (LOGITS.bfloat16(), TARGETS))
    assert low.loss.dtype == torch.float32
    # These logits are exact in bfloat16: only the float32 of the softmax is left.
    assert torch.allclose(low.loss.double(), LOSSES, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [torch.zeros(2), (LOGITS,), (LOGITS, TARGETS, TARGETS), {"x": LOGITS}])
def test_a_batch_of_another_form_asks_for_a_batch_function(batch) -> None:
    with pytest.raises(LoaderError, match=r"takes \(x, y\) or a dict.*pass batch_fn"):
        classification(nn.Identity(), batch)


def test_outputs_that_are_no_logits_ask_for_a_batch_function() -> None:
    with pytest.raises(LoaderError, match=r"returned \(2, 3, 1\); pass batch_fn"):
        classification(nn.Identity(), (LOGITS[:, :, None], TARGETS))
    with pytest.raises(LoaderError, match="returned list; pass batch_fn"):
        classification(nn.Identity(), ([LOGITS], TARGETS))


def test_a_mean_in_place_of_losses_is_refused() -> None:
    feed = Feed(CPU, lambda model, batch: Output(classification(model, batch).loss.mean(), None))
    with pytest.raises(LoaderError, match=r"one loss per example \[n\], not \(\)"):
        feed(nn.Identity(), (LOGITS, TARGETS))


def test_a_loss_that_cannot_be_trained_on_is_refused() -> None:
    def detached(model: nn.Module, batch) -> Output:
        output = classification(model, batch)
        return Output(output.loss.detach(), output.outputs)

    feed, batch = Feed(CPU, detached), digit_batches()[0]
    with pytest.raises(LoaderError, match="the loss has no gradient"):
        feed(small_net(), batch)
    with torch.no_grad():
        feed(small_net(), batch)
    feed(small_net().requires_grad_(False), batch)


SOFT = LOGITS.softmax(1)
WRONG_TARGETS = [(SOFT, "float64"), (TARGETS[:, None], "2, 1"), ([0, 1], "list"), (TARGETS.double(), "float64")]


@pytest.mark.parametrize(("targets", "found"), WRONG_TARGETS)
def test_targets_that_are_no_class_numbers_ask_for_a_batch_function(targets, found: str) -> None:
    with pytest.raises(LoaderError, match=rf"class numbers \[n\] as targets, not .*{found}.*; pass batch_fn"):
        classification(nn.Identity(), (LOGITS, targets))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_class_numbers_of_any_whole_type(dtype: torch.dtype) -> None:
    assert torch.allclose(classification(nn.Identity(), (LOGITS, TARGETS.to(dtype))).loss, LOSSES, rtol=0, atol=1e-12)


NO_LOADERS = [
    (DATA, "a TensorDataset, not an iterable of batches; wrap it in a DataLoader"),
    ({"train": [1]}, "a dict, not an iterable of batches"),
    (torch.zeros(3, 2), "a Tensor, not an iterable of batches"),
    ("train", "a str, not an iterable of batches"),
]


@pytest.mark.parametrize(("thing", "message"), NO_LOADERS)
def test_what_is_no_loader_is_refused_with_its_repair(thing, message: str) -> None:
    with pytest.raises(LoaderError, match=f"train is {message}"):
        check_loader(thing, "train")


def test_generators_of_numpy_and_python_come_back_too() -> None:
    random.seed(3)
    np.random.seed(3)
    expected = (random.random(), np.random.rand())
    random.seed(3)
    np.random.seed(3)
    for _ in batches_of([1, 2]):
        random.random(), np.random.rand()
    assert (random.random(), np.random.rand()) == expected


def test_every_generator_can_be_seeded() -> None:
    loader = loaders()["own generator"]
    draws = []
    for seed in (1, 1, 2):
        with generators_kept(loader):
            seed_all(seed, loader)
            numbers = (torch.rand(()), np.random.rand(), random.random(), torch.rand((), generator=loader.generator))
            draws.append([float(number) for number in numbers])
    assert draws[0] == draws[1]
    assert all(one != two for one, two in zip(draws[0], draws[2], strict=True))


def test_seeding_draws_as_pytorch_does_and_leaves_nothing_for_later() -> None:
    with generators_kept():
        seed_torch(5)
        drawn = torch.rand(3)
        waiting = list(torch.cuda._lazy_seed_tracker.get_calls())  # the seeds that a GPU gets at its first use
        seed_torch(6)
        assert list(torch.cuda._lazy_seed_tracker.get_calls()) == waiting
    with generators_kept():
        torch.default_generator.manual_seed(5)
        assert torch.equal(drawn, torch.rand(3))


@dataclass
class Pair:
    x: Tensor
    y: Tensor


def test_a_batch_is_known_by_its_parts() -> None:
    batch = {"x": torch.zeros(4, 2), "pair": Pair(torch.zeros(3), torch.zeros(())), "list": [np.ones(5), "text"]}
    assert [path for path, _ in parts(batch)] == [
        "batch", "batch.x", "batch.pair", "batch.pair.x", "batch.pair.y", "batch.list", "batch.list.0", "batch.list.1",
    ]  # fmt: skip
    assert lengths(batch) == {4, 3, 2, 5}
    assert [len(value) for value in tensors_in(batch) if value.ndim] == [4, 3]
    kept = copied(batch)
    batch["x"] += 1
    batch["list"][0] += 1
    assert not kept["batch.x"].any()
    assert bool((kept["batch.list.0"] == 1).all())
    assert kept["batch.list.1"] == "text"


def test_sparse_tensors_and_texts_in_arrays_are_parts_too() -> None:
    batch = (torch.eye(2).to_sparse(), np.array(["a", "b"]))
    assert torch.equal(copied(batch)["batch.0"], torch.eye(2))
    assert copied(batch)["batch.1"] == "['a', 'b']"


NAN = torch.tensor([1.0, float("nan")])


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (NAN, NAN.clone(), True), (NAN, torch.ones(2), False), (torch.ones(2), torch.ones(2).double(), False),
        (torch.ones(2), torch.ones(2, 1), False), (torch.ones(1), 1.0, False), ("a", "a", True), (1, True, False),
        (float("nan"), float("nan"), True), (torch.tensor([True]), torch.tensor([True]), True),
    ],
)  # fmt: skip
def test_identical_means_type_shape_and_every_number(a, b, equal: bool) -> None:
    assert identical(a, b) == equal


def test_autocast_sees_weights_that_changed_in_place() -> None:
    layer, batch = nn.Linear(3, 3), (torch.eye(3), torch.arange(3))
    feed = Feed(CPU, autocast=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):  # a region of the caller's, with a cache of its own
        before = feed(layer, batch)
        layer.weight.data.add_(1.0)
        after = feed(layer, batch)
    assert before.outputs.dtype == torch.bfloat16
    assert not torch.equal(before.outputs, after.outputs)
    assert torch.equal(after.outputs, feed(layer, batch).outputs)


def test_a_callers_autocast_region_does_not_reach_what_is_judged() -> None:
    model, batches = small_net(), digit_batches()
    with torch.autocast("cpu", torch.bfloat16):
        inside = evaluate(model, batches).losses
    assert (inside == evaluate(model, batches).losses).all()
    assert (inside != evaluate(model, batches, autocast=torch.bfloat16).losses).any()


def test_another_device_gets_a_copy() -> None:
    model = nn.Linear(2, 2)
    same, feed = feed_for(model)
    assert same is model
    assert feed.device == CPU
    copied, feed = feed_for(model, device="meta")
    assert copied is not model
    assert feed.device.type == "meta"
    assert not model.weight.is_meta


def test_precisions_have_names() -> None:
    assert autocast_dtype("fp32") is None
    assert autocast_dtype("bf16") is torch.bfloat16
    with pytest.raises(UsageError, match="unknown precision 'fp8'; choose fp32 or bf16"):
        autocast_dtype("fp8")

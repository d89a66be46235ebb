"""The user's own data in every form that is accepted, and what is said of the others."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from closerlook.data import TensorBatches, custom, load, loaders, split
from closerlook.errors import LoaderError, UsageError

X, Y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4
PAIR = (X, Y)


class Items(Dataset):
    def __init__(self, items: list):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        return self.items[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


class Noisy(Items):
    def __getitem__(self, index: int):
        return torch.rand(2), self.items[index]


@pytest.mark.parametrize(
    "part",
    [
        PAIR,
        [X, Y.int()],
        (X.numpy(), Y.numpy()),
        TensorDataset(X, Y),
        Items([(x.numpy(), int(y)) for x, y in zip(X, Y, strict=True)]),
    ],
)
def test_pairs_and_datasets_become_a_source(part) -> None:
    source = custom((part, PAIR, PAIR))
    assert torch.equal(source.train_inputs, X)
    assert torch.equal(source.train_targets, Y)
    assert (source.classes, source.name, source.input_shape()) == (4, "custom", (3,))
    parts = split(source, n_train=12, n_validation=5, n_statistics=4, seed=0)
    assert [len(part.targets) for part in parts] == [12, 8, 4, 5, 12]


def test_a_target_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_parts.py").write_text(
        "import torch\ndef parts():\n    return ((torch.zeros(2, 5), torch.arange(2)),) * 3\n"
    )
    assert load("own_parts:parts").input_shape() == (5,)
    assert load("own_parts:parts").name == "own_parts:parts"


def test_a_random_dataset_is_drawn_once_from_a_fixed_seed() -> None:
    before = torch.get_rng_state()
    first = custom((Noisy([0, 1]), PAIR, PAIR)).train_inputs
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    assert torch.equal(custom((Noisy([0, 1]), PAIR, PAIR)).train_inputs, first)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ((PAIR, PAIR), UsageError, r"custom data: need \(train, validation, test\), got 2 parts"),
        (PAIR[0], UsageError, "got Tensor"),
        ((DataLoader(TensorDataset(*PAIR)), PAIR, PAIR), LoaderError, r"train is a loader \(DataLoader\)"),
        ((PAIR, [PAIR, PAIR, PAIR], PAIR), LoaderError, r"validation is a loader \(list\)"),
        ((PAIR, PAIR, Stream()), UsageError, "test is a Stream; need"),
        ((PAIR, PAIR, 3), UsageError, "test is a int; need"),
        (((X, Y[:3]), PAIR, PAIR), UsageError, r"inputs \(12, 3\) and targets \(3,\)"),
        (((X, Y.float()), PAIR, PAIR), UsageError, "integers from 0, got torch.float32"),
        (((X, Y - 1), PAIR, PAIR), UsageError, "integers from 0"),
        ((Items([(X[0], "cat")]), PAIR, PAIR), UsageError, r"train\[0\] is not \(x, y\)"),
        ((Items([X[0]]), PAIR, PAIR), UsageError, r"train\[0\] is not \(x, y\)"),
        ((Items([({"a": 1}, 1)]), PAIR, PAIR), UsageError, r"train\[0\] is not \(x, y\)"),
        ((Items([]), PAIR, PAIR), LoaderError, "train is an empty Dataset"),
        ((Items([(X[0], 0), (X[0][:2], 0)]), PAIR, PAIR), UsageError, "different shapes"),
    ],
)
def test_what_cannot_be_used_is_named(parts, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        custom(parts)


def test_loaders_stay_as_they_are_and_the_rest_is_batched() -> None:
    own = DataLoader(TensorDataset(*PAIR), batch_size=3)
    train, validation, test = loaders((own, PAIR, TensorDataset(*PAIR)), batch_size=5)
    assert train is own
    assert isinstance(validation, TensorBatches)
    assert [len(y) for _, y in test] == [5, 5, 2]
    assert np.array_equal(torch.cat([x for x, _ in validation]), X)


@pytest.mark.parametrize("part", [iter([PAIR]), 3])
def test_one_shot_iterators_are_no_loaders(part) -> None:
    with pytest.raises(LoaderError, match="iterable again and again"):
        loaders((PAIR, PAIR, part), batch_size=5)

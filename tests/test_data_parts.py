"""Splits: which images are in which part."""

import pytest
import torch

from closerlook.data import Pair, Parts, Source, split
from closerlook.errors import UsageError

ROWS = torch.arange(100)


def source(validation: int = 0) -> Source:
    own = Pair(torch.arange(1000, 1000 + validation), torch.zeros(validation)) if validation else None
    return Source(ROWS, ROWS % 10, ROWS + 500, ROWS % 10, 10, "rows", prepare=lambda x: x * 2.0, validation=own)


def rows(part: Pair) -> list[int]:
    return (part.inputs / 2).int().tolist()


def cut(seed: int = 0, own: int = 0, **sizes) -> Parts:
    return split(source(own), **{"n_train": 50, "n_validation": 20, "n_statistics": 10, **sizes}, seed=seed)


def test_parts_are_disjoint_where_they_must_be() -> None:
    parts = cut(n_read=30)
    train, read, statistics, validation = (rows(part) for part in parts[:4])
    assert [len(part.targets) for part in parts] == [50, 30, 10, 20, 100]
    assert train[:30] == read
    assert train[-10:] == statistics
    assert not set(read) & set(statistics)
    assert not set(validation) & set(train)
    assert rows(parts.test) == (ROWS + 500).tolist()


def test_inputs_keep_their_targets_and_are_prepared() -> None:
    for part in cut()[:4]:
        assert torch.equal(part.targets, (part.inputs / 2).long() % 10)


def test_without_n_read_all_but_the_statistics_are_read() -> None:
    assert rows(cut().read) == rows(cut().train)[:40]
    assert rows(cut(n_statistics=0).read) == rows(cut().train)


def test_parts_follow_from_the_seed_and_only_grow_with_n() -> None:
    assert rows(cut(3).train) == rows(cut(3).train)
    assert rows(cut(3).train) != rows(cut(4).train)
    assert rows(cut(3, n_train=60).train)[:50] == rows(cut(3).train)
    assert rows(cut(3, n_train=60).validation) == rows(cut(3).validation)
    assert set(rows(cut(3, n_validation=30).validation)) >= set(rows(cut(3).validation))


def test_a_validation_part_of_its_own_is_used() -> None:
    parts = cut(own=25, n_train=100)
    assert sorted(rows(parts.train)) == ROWS.tolist()
    assert len(set(rows(parts.validation))) == 20
    assert set(rows(parts.validation)) <= set(range(1000, 1025))


def test_no_validation_gives_an_empty_part() -> None:
    assert cut(n_validation=0).validation.inputs.shape == (0,)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_train": 90}, "rows has 100 training examples; n_train=90 and n_validation=20 need 110"),
        ({"n_train": 101, "own": 20}, "rows has 100 training examples; n_train=101 need 101"),
        ({"own": 15}, "rows has 15 validation examples; n_validation=20"),
        ({"n_statistics": 50}, "n_train=50 less n_statistics=50 leaves 0 examples"),
        ({"n_read": 41}, "leaves 40 examples to read the loss on; n_read=41"),
        ({"n_read": 0}, "n_read=0 does not fit"),
        ({"n_train": 0, "n_statistics": 0}, "leaves 0 examples"),
        ({"n_validation": -1}, "n_validation must not be negative"),
    ],
)
def test_too_large_parts_are_refused_with_the_numbers(sizes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cut(**sizes)

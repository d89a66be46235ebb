"""Parts of a loader: random, without replacement, the same examples whatever the batches."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from closerlook.errors import LoaderError
from closerlook.landscape.subset import Subset


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


def loader(n: int, batch_size: int) -> list[tuple[Tensor, Tensor]]:
    x = torch.arange(n)
    return list(zip(x.split(batch_size), (10 * x).split(batch_size), strict=True))


def drawn(subset: Subset, low: int, high: int) -> np.ndarray:
    """The examples number low .. high - 1, in their random order."""
    batches, numbers = subset.batches(low, high)
    values = torch.cat([x for x, _ in batches]).numpy()
    assert torch.equal(torch.cat([y for _, y in batches]), 10 * torch.from_numpy(values))
    assert sorted(numbers) == list(range(low, high))
    return values[np.argsort(numbers)]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 5), st.data())
def test_pieces_put_together_are_one_random_order(n: int, batch_size: int, seed: int, data: st.DataObject) -> None:
    subset = Subset(loader(n, batch_size), seed)
    assert subset.total == n
    cuts = sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=3))})
    pieces = [drawn(subset, low, high) for low, high in pairwise(cuts)]
    whole = np.concatenate(pieces)
    assert sorted(whole) == list(range(n))
    # The order does not know how the examples came in batches.
    assert np.array_equal(whole, drawn(Subset(loader(n, n), seed), 0, n))


def test_any_first_examples_are_a_fair_draw() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        counts[drawn(Subset(loader(20, 7), seed), 0, 5)] += 1
    # 500 expected each, standard deviation 19.4; five of them among 20 numbers.
    assert np.abs(counts - 500).max() < 5 * 19.4


def test_batches_keep_their_containers_and_size() -> None:
    x = torch.arange(12)
    named = [{"x": part, "more": Pair(part, [part]), "tag": "a"} for part in x.split(8)]
    batches, _ = Subset(named).batches(0, 12)
    assert [len(batch["x"]) for batch in batches] == [8, 4]
    first: Any = batches[0]
    assert isinstance(first["more"], Pair)
    assert torch.equal(first["more"].y[0], first["x"])
    assert first["tag"] == "a"


def test_batches_of_other_shapes_stay_apart() -> None:
    tokens = [torch.zeros(3, 5), torch.zeros(3, 7)]
    batches, _ = Subset([(rows, torch.zeros(3)) for rows in tokens]).batches(0, 6)
    assert [tuple(rows.shape) for rows, _ in batches] == [(3, 5), (3, 7)]


def test_batches_without_examples_along_the_first_axis_are_refused() -> None:
    for batch in [(torch.zeros(4, 2), torch.zeros(3)), (torch.tensor(1.0), torch.zeros(3)), ("text",)]:
        with pytest.raises(LoaderError, match="leave tolerance out"):
            Subset([batch])

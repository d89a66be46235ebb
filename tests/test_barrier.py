"""Barriers in one line, against profiles of the same segments."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import closerlook as cl
from closerlook.errors import LoaderError, MismatchError, UsageError
from conftest import digit_batches, small_net

BATCHES = digit_batches(80, 32, dtype=torch.float64)


def networks(count: int) -> list[nn.Sequential]:
    return [small_net(seed).double() for seed in range(count)]


@pytest.mark.parametrize("definition", ["above_ends", "above_mean_of_ends", "above_line"])
@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_a_barrier_is_that_of_the_straight_profile(metric: str, definition) -> None:
    model, a, b = networks(3)
    path = cl.profile(model, cl.line(a, b), BATCHES, points=7)
    found = cl.barrier(model, a, b, BATCHES, points=7, metric=metric, definition=definition)
    assert found == path.barrier("train", metric, definition)
    if definition == "above_mean_of_ends":
        values = path.metric("train", metric)
        rise = values.max() - (values[0] + values[-1]) / 2 if metric == "loss" else values[[0, -1]].mean() - min(values)
        assert float(found) == pytest.approx(rise, abs=1e-12)


def test_a_barrier_says_in_which_precision_it_was_read() -> None:
    model, a, b = (small_net(seed) for seed in range(3))
    batches = digit_batches(80, 32)
    for autocast, said in ((None, "fp32"), (torch.bfloat16, "bf16")):
        assert cl.barrier(model, a, b, batches, points=3, autocast=autocast).precision == said
        assert cl.barrier_matrix(model, [a, b], batches, points=3, autocast=autocast).to_dict()["precision"] == said


def test_two_trained_networks_have_a_barrier_and_one_has_none_to_itself() -> None:
    model, a, _ = networks(3)
    batches = digit_batches(200, 50, dtype=torch.float64)
    trained = [cl.train(net, batches, lr=0.2, momentum=0.9, epochs=6).point for net in (a, small_net(5).double())]
    assert cl.barrier(model, *trained, batches, points=9).value > 0.3
    same = cl.barrier(model, trained[0], trained[0], batches, points=9)
    # (1 - t) w + t w is w up to rounding.
    assert same.value == pytest.approx(0, abs=1e-10)


def test_a_matrix_holds_the_barriers_of_all_pairs() -> None:
    model, *others = networks(4)
    settings: dict[str, Any] = {"definition": "above_mean_of_ends", "batch_stats": "keep"}
    found = cl.barrier_matrix(model, others, BATCHES, points=5, labels=["a", "b", "c"], **settings)
    assert np.array_equal(found.values, found.values.T)
    assert not found.values.diagonal().any()
    for i, j in ((0, 1), (0, 2), (1, 2)):
        single = cl.barrier(model, others[i], others[j], BATCHES, points=5, **settings)
        assert found.values[i, j] == single.value
    assert len(set(found.values[np.triu_indices(3, 1)])) == 3
    frame = found.to_frame()
    assert frame.loc["a", "c"] == frame.loc["c", "a"] == found.values[0, 2]
    stored = found.to_dict()
    assert stored["labels"] == ["a", "b", "c"]
    assert stored["values"] == found.values.tolist()
    assert (stored["definition"], stored["points"], stored["batch_stats"]) == ("above_mean_of_ends", 5, "keep")
    assert cl.barrier_matrix(model, others[:2], BATCHES, points=2).labels == ("0", "1")


@pytest.mark.parametrize("tolerance", [None, 0.05])
def test_every_pair_of_a_matrix_has_its_own_interval(tolerance: float | None) -> None:
    model, *others = networks(4)
    found = cl.barrier_matrix(model, others, BATCHES, points=9, batch_stats="keep", tolerance=tolerance, level=0.9)
    for (i, j), pair in found.pairs.items():
        single = cl.barrier(
            model, others[i], others[j], BATCHES, points=9, batch_stats="keep", tolerance=tolerance, level=0.9
        )
        assert pair == single
        assert found.low[i, j] == found.low[j, i] == single.low <= single.value
        assert found.high[i, j] == found.high[j, i] == single.high >= single.value
    stored = found.to_dict()
    assert (stored["low"], stored["high"]) == (found.low.tolist(), found.high.tolist())
    assert (stored["level"], stored["interval_of"]) == (0.9, "population" if tolerance is None else "loader")
    assert stored["points"] == max(pair.points for pair in found.pairs.values())
    if tolerance is not None:  # only the loss has a certificate
        bare = cl.barrier_matrix(
            model, others, BATCHES, points=9, batch_stats="keep", tolerance=tolerance, metric="accuracy"
        ).to_dict()
        assert bare["low"] == bare["high"] == [[0, None, None], [None, 0, None], [None, None, 0]]


def test_sources_may_be_mixed(tmp_path) -> None:
    model, a, b = networks(3)
    torch.save(b.state_dict(), tmp_path / "b.pt")
    expected = cl.barrier(model, a, b, BATCHES, points=3)
    assert cl.barrier(model, a.state_dict(), tmp_path / "b.pt", BATCHES, points=3) == expected


class Unread:
    """Batches that nobody may ask for."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("it was read before it was refused")


def test_what_has_no_barrier_is_refused() -> None:
    model, a, b = networks(3)
    with pytest.raises(UsageError, match="at least two points"):
        cl.barrier_matrix(model, [a], BATCHES)
    with pytest.raises(UsageError, match="3 labels do not name 2 points"):
        cl.barrier_matrix(model, [a, b], BATCHES, labels=["a", "b", "c"])
    with pytest.raises(LoaderError, match="one-shot"):
        cl.barrier(model, a, b, iter(BATCHES))
    with pytest.raises(MismatchError, match=r"point 1 is torch\.float32, point 0 is torch\.float64"):
        cl.barrier(model, a, small_net(1), BATCHES)
    unread = Unread()
    for settings, message in [
        ({"definition": "highest"}, "unknown barrier 'highest'; choose one of above_ends"),
        ({"metric": "f1"}, "no barrier of 'f1'; choose one of loss, error, accuracy"),
        ({"points": 1}, "a barrier needs both ends: at least two points, not 1"),
    ]:
        with pytest.raises(UsageError, match=message):
            cl.barrier(model, a, b, unread, **settings)

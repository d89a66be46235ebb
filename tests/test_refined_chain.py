"""Pivots where a chain is high, on planted losses of two weights; starting a curve from given bends."""

from collections.abc import Sequence
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

import closerlook as cl
from closerlook.batches import Output, classification
from closerlook.errors import MismatchError, UsageError
from closerlook.landscape.pivots import places, with_pivots
from conftest import Batch, digit_batches, small_net

Array = NDArray[np.float64]
STEPS = [torch.zeros(1, dtype=torch.float64)] * 40  # an epoch of forty steps; nothing is in a batch
FAR = 160 * pi / 180
DOWN = cl.linear_decay(begin="0.5dur", end="0.9dur", final=0.01)


class Plane(nn.Module):
    """Two weights, on a ring-shaped valley of radius 1: the loss is 4 (|w| - 1)^2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.3, 0.2], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return 4 * (torch.linalg.vector_norm(self.w) - 1).square().expand(len(x))


def ring(w: Array) -> Array:
    return 4 * (np.linalg.norm(w, axis=-1) - 1) ** 2


def given_loss(model: nn.Module, batch: Tensor) -> Output:
    loss = model(batch)
    return Output(loss, loss[:, None])


def along(points: Sequence[Array], count: int = 400) -> Array:
    """Points on every segment of a chain [(K - 1) (count + 1) + 1, 2]."""
    t = np.linspace(0, len(points) - 1, (len(points) - 1) * (count + 1) + 1)
    stacked = np.stack(points)
    return np.stack([np.interp(t, np.arange(len(points)), stacked[:, axis]) for axis in (0, 1)], axis=1)


def vectors(chain: cl.Subspace) -> list[Array]:
    return [point.vector.numpy() for point in chain.points]


START, END = np.array([1.0, 0.0]), np.array([cos(FAR), sin(FAR)])
SETTINGS: dict[str, Any] = {"batch_fn": given_loss, "weight_decay": 0.0}


def refined(chain: cl.Subspace, cycles: Sequence[tuple[int, float]], **settings: Any) -> cl.Subspace:
    return cl.refine_chain(Plane(), chain, STEPS, STEPS[:1], cycles=cycles, **{**SETTINGS, **settings})


@pytest.mark.parametrize("bends", [1, 2])
def test_few_bends_cannot_follow_the_valley_and_the_refined_chain_does(bends: int) -> None:
    bound = min(
        minimize(lambda w: ring(along([START, w, END], 60)).max(), start, method="Nelder-Mead").fun
        for start in ([0.3, 1.2], [-0.5, 1.5], [0.2, -1.0])
    )  # no chain with one bend has a lower barrier than this
    model = Plane()
    bent = cl.connect(
        model, torch.tensor(START), torch.tensor(END), STEPS, bends=bends, epochs=6, lr=0.1, momentum=0.0, **SETTINGS
    )
    chain = refined(bent, cycles=[(3, 0.1), (3, 0.1), (3, 0.05)], momentum=0.0, schedule=DOWN)
    once, more = (ring(along(vectors(path))).max() for path in (bent, chain))
    assert bound > 0.1
    assert (bends > 1) or once > bound
    assert more < min(bound, once) / 5
    assert len(chain.points) == bends + 8
    assert [np.array_equal(*pair) for pair in ((vectors(chain)[0], START), (vectors(chain)[-1], END))] == [True, True]
    read = cl.profile(model, chain, STEPS[:1], points=len(chain.points), batch_fn=given_loss).metric("train", "loss")
    assert np.allclose(read, ring(np.stack(vectors(chain))), rtol=0, atol=1e-12)


# A chain inside the valley, high between its pivots; and one whose bend lies outside of it and is high itself.
INSIDE = [np.array([cos(a), sin(a)]) for a in (0.0, 0.3, 2.2, FAR)]
OUTSIDE = [START, 1.5 * np.array([cos(FAR / 2), sin(FAR / 2)]), END]


@pytest.mark.parametrize(("points", "count"), [(INSIDE, 1), (OUTSIDE, 2)])
def test_the_new_pivots_lie_on_the_old_path_where_it_was_high(points: list[Array], count: int) -> None:
    chain = cl.polychain([torch.tensor(point) for point in points])
    found = refined(chain, cycles=[(1, 0.0)], between=19)  # at rate 0 no pivot moves
    losses = ring(along(points, 19))
    # By hand: the highest of a segment above the line between its pivots, or half of it beside a pivot that is higher.
    tops, segments = [], len(points) - 1
    for k in range(segments):
        on = losses[20 * k : 20 * k + 21]
        above = [on[j] - (on[0] + (on[20] - on[0]) * j / 20) for j in range(21)]
        top = (max(above), k + above.index(max(above)) / 20)
        for pivot in (k, k + 1):
            if 0 < pivot < segments:
                left, here, right = (losses[20 * (pivot + step)] for step in (-1, 0, 1))
                top = max(top, (here - (left + right) / 2, k + 0.5))
        tops.append(top)
    chosen = [place / segments for height, place in sorted(tops)[-2:] if height > 0.2 * np.ptp(losses)]
    assert len(chosen) == count
    assert found.history[0]["inserted"] == pytest.approx(sorted(chosen), abs=1e-12)
    assert (found.history[0]["cycle"], found.history[0]["pivots"]) == (0, len(points) - 2 + count)
    every = sorted([*(k / segments for k in range(segments + 1)), *chosen])
    for vector, t in zip(vectors(found), every, strict=True):
        assert np.allclose(vector, chain.at(t).vector.numpy(), rtol=0, atol=1e-12)


@given(
    st.lists(st.floats(0, 10), min_size=9, max_size=9), st.floats(0, 0.9), st.integers(1, 4),
    st.floats(-5, 5), st.floats(0.1, 10),
)  # fmt: skip
def test_the_rule_knows_neither_where_zero_is_nor_the_unit(
    drawn: list[float], share: float, most: int, shift: float, unit: float
) -> None:
    losses = np.round(np.array(drawn), 3)  # ties and rounding apart
    found = places(losses, between=1, share=share, most=most)
    inside, outside = losses[1::2] - (losses[:-1:2] + losses[2::2]) / 2, np.zeros(5)
    outside[1:-1] = losses[2:-1:2] - (losses[:-3:2] + losses[4::2]) / 2
    excess = np.maximum(inside, np.maximum(outside[:-1], outside[1:]))
    bound = share * np.ptp(losses)
    assert len(found) <= most
    assert found == sorted(found)
    assert all(place % 1 == 0.5 and excess[int(place)] > bound for place in found)
    # A segment is left out only for another that is as high, or because it is low.
    left = [excess[k] for k in range(4) if k + 0.5 not in found]
    assert all(value <= bound or len(found) == most for value in left)
    assert not found or len(found) < most or max(left, default=-1.0) <= min(excess[int(place)] for place in found)
    if np.abs(excess - bound).min() > 1e-9 and len(set(np.round(excess, 9))) == 4:
        assert places(unit * losses + shift, between=1, share=share, most=most) == found


@given(st.lists(st.integers(1, 3 * 64 - 1).filter(lambda n: n % 64), max_size=3, unique_by=lambda n: n // 64))
def test_inserting_leaves_the_path_as_it_was(sixtyfourths: list[int]) -> None:
    points = [torch.tensor(pair, dtype=torch.float64) for pair in ([0.0, 1.0], [3.0, -1.0], [0.5, 0.5], [2.0, 2.0])]
    chain = cl.polychain(points)
    longer, t = with_pivots(chain, sorted(n / 64 for n in sixtyfourths))
    assert len(longer.points) == 4 + len(sixtyfourths)
    assert longer.length() == pytest.approx(chain.length(), rel=1e-12)
    for place in t:
        assert min(float(torch.dist(point.vector, chain.at(place).vector)) for point in longer.points) == 0
    assert all(any(torch.equal(point.vector, kept) for point in longer.points) for kept in points)


def test_a_line_on_which_nothing_is_high_stays_a_line() -> None:
    flat = cl.line(torch.tensor(START), torch.tensor(START + 1e-3))
    # The loss along it is convex: it lies below every chord.
    found = refined(flat, cycles=[(2, 0.1), (2, 0.1)])
    assert len(found.points) == 2
    assert found.history == ()
    curved = refined(cl.line(torch.tensor(START), torch.tensor(END)), cycles=[(2, 0.05)])
    assert (len(curved.points), len(curved.history)) == (3, 2)


def test_a_killed_refinement_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    calls: list[int] = []

    def stops(model: nn.Module, batch: Tensor) -> Output:
        calls.append(1)
        if len(calls) == 150:
            raise KeyboardInterrupt
        return given_loss(model, batch)

    line, cycles = cl.line(torch.tensor(START), torch.tensor(END)), [(1, 0.05), (1, 0.05), (1, 0.02)]
    whole = refined(line, cycles)
    with pytest.raises(KeyboardInterrupt):
        refined(line, cycles, out=tmp_path, batch_fn=stops)
    resumed = refined(line, cycles, out=tmp_path)
    assert whole.history == resumed.history
    assert all(np.array_equal(*pair) for pair in zip(vectors(whole), vectors(resumed), strict=True))
    again = refined(line, cycles, out=tmp_path)
    assert again.history == whole.history


def test_every_cycle_draws_its_own_t() -> None:
    chain = cl.polychain([torch.tensor(point) for point in OUTSIDE])
    # At rate 0 and without new pivots the chain is the same in each cycle: what differs is t alone.
    found, other = (refined(chain, cycles=[(1, 0.0)] * 2, share=100.0, seed=seed) for seed in (0, 1))
    losses = [row["loss"] for row in found.history]
    assert losses[0] != losses[1] == other.history[0]["loss"]


def test_a_network_with_batch_norm_is_refined_on_images_of_its_own() -> None:
    fit, read, statistics = digit_batches(200, 50), digit_batches(100, start=200), digit_batches(60, start=300)
    model, *ends = (small_net(seed) for seed in range(3))
    ends = [cl.loaded(net, cl.train(net, fit, lr=0.2, momentum=0.9, epochs=6).point) for net in ends]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chain = cl.connect(model, *ends, fit, epochs=4, lr=0.05)
    found = cl.refine_chain(model, chain, fit, read, cycles=[(3, 0.05), (3, 0.02)], stats_loader=statistics, between=3)
    heights = [
        cl.profile(model, path, fit, points=25, stats_loader=statistics).metric("train", "loss").max()
        for path in (chain, found)
    ]
    assert heights[1] < heights[0]
    assert len(found.points) > len(chain.points)
    assert found.points[0].buffers.keys() == ends[0].state_dict().keys() - dict(model.named_parameters()).keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_refined_is_refused() -> None:
    points = [torch.tensor(START), torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor(END)]
    refused: list[tuple[cl.Subspace, dict[str, Any], str]] = [
        (cl.bezier(points), {}, "a bezier does not stay the same"),
        (cl.polychain(points), {"cycles": []}, "no cycle to train"),
        (cl.polychain(points), {"cycles": [(1, 0.1, 0.9)]}, "one is no pair"),
        (cl.polychain(points), {"lr": 0.1, "epochs": 3}, "the chain and its cycles say epochs, lr already"),
        (cl.polychain(points), {"share": -0.1}, "share is at least 0"),
        (cl.polychain(points), {"most": 0}, "most and between at least 1"),
        (cl.polychain(points), {"between": 0}, "most and between at least 1"),
    ]
    for chain, settings, message in refused:
        with pytest.raises(UsageError, match=message):
            refined(chain, **{"cycles": [(1, 0.1)], **settings})


def test_a_refinement_that_diverges_ends_and_says_so() -> None:
    points = [torch.tensor(START), torch.tensor([0.0, 1.5], dtype=torch.float64), torch.tensor(END)]

    def exploding(model: nn.Module, batch: Tensor) -> Output:
        loss = model(batch) + torch.where(model.w.norm() > 1e3, torch.inf, 0.0)
        return Output(loss, loss[:, None])

    found = refined(cl.polychain(points), cycles=[(2, 1e6), (2, 0.1)], batch_fn=exploding)
    assert "diverged" in found.history[-1]
    assert {row["cycle"] for row in found.history} == {0}


# Where bends start ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bends_that_start_where_they_would_anyway_change_no_bit(memory_format: torch.memory_format) -> None:
    model, a, b = (small_net(seed).to(memory_format=memory_format) for seed in range(3))
    points = [cl.WeightSpace(net).point(net) for net in (a, b)]
    inner = [cl.line(*points).at(share) for share in np.linspace(0, 1, 4)[1:-1]]
    vectors = [point.vector.clone() for point in inner]
    settings: dict[str, Any] = {"kind": "bezier", "bends": 2, "epochs": 2, "lr": 0.1, "memory_format": memory_format}
    plain, started = (cl.connect(model, a, b, digit_batches(), **settings, start=start) for start in ((), inner))
    assert plain.history == started.history
    assert all(
        torch.equal(*pair) for pair in zip(*([p.vector for p in c.points] for c in (plain, started)), strict=True)
    )
    # The caller's points are where they were.
    assert all(torch.equal(point.vector, kept) for point, kept in zip(inner, vectors, strict=True))
    moved = cl.connect(model, a, b, digit_batches(), **settings, start=inner[::-1])
    assert not torch.equal(moved.points[1].vector, plain.points[1].vector)
    assert torch.equal(moved.snapshots[0].points[1].vector, vectors[1])


def test_starts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model, a, b, c = (small_net(seed) for seed in range(4))
    calls: list[int] = []

    def counted(model: nn.Module, batch: Batch) -> Output:
        calls.append(1)
        return classification(model, batch)

    refused: list[tuple[list[Any], type[Exception], str]] = [
        ([c, c], UsageError, "2 starting points do not fit bends=1"),
        ([c.state_dict() | {"head.bias": torch.full((10,), torch.nan)}], UsageError, "point 1 .*NaN"),
        ([torch.zeros(3)], MismatchError, "3 entries for a space of 852"),
        ([torch.zeros(852, dtype=torch.float64)], MismatchError, "point 1 is torch.float64"),
    ]
    for start, error, message in refused:
        with pytest.raises(error, match=message):
            cl.connect(model, a, b, digit_batches(), epochs=1, start=start, batch_fn=counted)
    assert not calls
    cl.connect(model, a, b, digit_batches(), epochs=1, start=[c], out=tmp_path)
    with pytest.raises(UsageError, match="another start"):
        cl.connect(model, a, b, digit_batches(), epochs=1, start=[a], out=tmp_path)

"""Metrics on planes: a known function at every cell, marks where they belong, a curve's own values on its plane."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import closerlook as cl
from closerlook.batches import Output
from closerlook.errors import LoaderError, MismatchError, UsageError
from conftest import Batch, digit_batches, small_net

# Values of size 10 in float64.
EXACT = 1e-12
TRAIN = digit_batches(80, 32, dtype=torch.float64)
BATCH = [(torch.zeros(3, 1), torch.zeros(3))]


def flat(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().reshape(-1) for value in model.parameters()])


class Bowl:
    """The loss sum_i k_i (w_i - c_i)^2 / 2 on the 8 weights of a linear layer: no two directions look alike."""

    def __init__(self, seed: int = 0) -> None:
        source = torch.Generator().manual_seed(seed)
        self.model = nn.Linear(3, 2).double()
        self.centre, self.width, *self.points = 2 * torch.rand(6, 8, generator=source, dtype=torch.float64)

    def __call__(self, model: nn.Module, batch: Batch) -> Output:
        return Output(self.at(flat(model)).expand(len(batch[0])), None)

    def at(self, w: Tensor) -> Tensor:
        return (self.width * (w - self.centre) ** 2).sum() / 2

    def surface(self, **options: Any) -> cl.Surface:
        return cl.surface(self.model, cl.plane(*self.points[:3]), BATCH, batch_fn=self, **options)


def axes(p: list[Tensor]) -> tuple[Tensor, Tensor]:
    u = (p[2] - p[0]) / (p[2] - p[0]).norm()
    rest = (p[1] - p[0]) - ((p[1] - p[0]) @ u) * u
    return u, rest / rest.norm()


@pytest.mark.parametrize("grid", [(5, 5), (7, 4), (2, 3)])
def test_every_cell_holds_the_value_of_its_own_point(grid: tuple[int, int]) -> None:
    bowl = Bowl()
    u, v = axes(bowl.points)
    found = bowl.surface(grid=grid)
    values = found.values["train_loss"]
    assert values.shape == (grid[1], grid[0])
    assert (len(found.x), len(found.y)) == grid
    for row, y in enumerate(found.y):
        for column, x in enumerate(found.x):
            expected = bowl.at(bowl.points[0] + x * u + y * v)
            assert values[row, column] == pytest.approx(expected.item(), abs=10 * EXACT)
    # Not a constant, and no column equals its neighbour.
    assert np.abs(np.diff(values, axis=0)).min() > 1e-3
    assert np.abs(np.diff(values, axis=1)).min() > 1e-3
    frame = found.to_frame()
    assert frame["train_loss"].tolist() == values.ravel().tolist()
    assert frame["x"].tolist()[: grid[0]] == found.x.tolist()
    assert set(frame["y"].tolist()[: grid[0]]) == {found.y[0]}


def test_marks_lie_where_their_weights_are() -> None:
    bowl = Bowl()
    p, (u, v) = bowl.points, axes(bowl.points)
    off_plane = bowl.points[3] - p[0]
    normal = off_plane - (off_plane @ u) * u - (off_plane @ v) * v
    inside = p[0] + 0.3 * u + 0.2 * v
    found = bowl.surface(grid=(3, 3), mark={"inside": inside, "above": inside + 2.5 * normal / normal.norm()})
    for name, w in (("w_0", p[0]), ("w_1", p[1]), ("w_2", p[2]), ("inside", inside)):
        mark = found.marks[name]
        assert mark.distance == pytest.approx(0, abs=10 * EXACT)
        # The function at a mark's coordinates is the function at its weights.
        here = bowl.at(p[0] + mark.x * u + mark.y * v)
        assert here.item() == pytest.approx(bowl.at(w).item(), abs=10 * EXACT)
    above = found.marks["above"]
    assert (above.x, above.y) == pytest.approx((0.3, 0.2), abs=10 * EXACT)
    assert above.distance == pytest.approx(2.5, abs=10 * EXACT)


def test_the_grid_is_the_box_around_all_marks_with_a_margin() -> None:
    bowl = Bowl()
    u, v = axes(bowl.points)
    far = bowl.points[0] - 4 * u + 9 * v
    found = bowl.surface(grid=(5, 3), margin=0.1, mark={"far": far})
    xs, ys = ([getattr(mark, axis) for mark in found.marks.values()] for axis in "xy")
    assert (min(xs), max(ys)) == pytest.approx((-4, 9), abs=10 * EXACT)
    for axis, places in ((found.x, xs), (found.y, ys)):
        size = max(places) - min(places)
        ends = np.linspace(min(places) - 0.1 * size, max(places) + 0.1 * size, len(axis))
        assert np.allclose(axis, ends, rtol=0, atol=10 * EXACT)


def test_the_start_point_is_read_itself() -> None:
    # With w_1 between w_0 and w_2 along x, and no margin, the box's corner is w_0 and its lower edge ends in w_2.
    a, b, c = (small_net(seed).double() for seed in range(3))
    first, last = flat(a), flat(c)
    middle = (first + last) / 2 + (flat(b) - (first + last) / 2)
    u = (last - first) / (last - first).norm()
    middle = middle - ((middle - (first + last) / 2) @ u) * u
    found = cl.surface(a, cl.plane(a, middle, c), TRAIN, grid=(3, 2), margin=0.0, batch_stats="keep")
    assert (found.x[0], found.y[0]) == pytest.approx((0, 0), abs=10 * EXACT)
    losses = found.values["train_loss"]
    own = cl.evaluate(a, TRAIN)
    assert losses[0, 0] == pytest.approx(own.loss, abs=1e-10)
    assert found.values["train_accuracy"][0, 0] == own.accuracy
    c.load_state_dict({**c.state_dict(), **dict(a.named_buffers())})
    assert losses[0, -1] == pytest.approx(cl.evaluate(c, TRAIN).loss, abs=1e-10)


@pytest.mark.parametrize("batch_stats", ["recompute", "reference", "keep"])
def test_the_plane_of_a_chain_shows_the_chains_own_values(batch_stats: Any) -> None:
    model, a, bend = (small_net(seed).double() for seed in range(3))
    first, middle = flat(a), flat(bend)
    along = middle - first
    side = flat(small_net(7).double()) - first
    last = first + 0.5 * along + (side - (side @ along) / (along @ along) * along)
    # With the bend as w_2 the first half of the chain is the lower edge of the box.
    found = cl.surface(
        model, cl.plane(first, last, middle), TRAIN, grid=(5, 2), margin=0.0, batch_stats=batch_stats
    )  # fmt: skip
    chain = cl.polychain([first, middle, last])
    along_it = cl.profile(model, chain, TRAIN, points=np.linspace(0, 0.5, 5), batch_stats=batch_stats)
    assert found.y[0] == pytest.approx(0, abs=10 * EXACT)
    for metric in ("train_loss", "train_accuracy"):
        assert np.allclose(found.values[metric][0], along_it.values[metric], rtol=0, atol=1e-10)
    assert np.abs(np.diff(found.values["train_loss"][0])).min() > 1e-3
    assert found.batch_stats == batch_stats


@pytest.mark.parametrize("kind", ["polychain", "bezier"])
def test_a_curve_lies_in_the_plane_of_its_three_points(kind: str) -> None:
    points = [flat(small_net(seed).double()) for seed in range(3)]
    curve = {"polychain": cl.polychain, "bezier": cl.bezier}[kind](points)
    flat_plane = cl.plane(points[0], points[1], points[2])
    for t in np.linspace(0, 1, 9):
        coords, off = flat_plane.project(curve.at(t))
        assert off < 1e-11  # vectors of length 10
        assert np.allclose(flat_plane.coefficients(coords[None]), curve.coefficients([t]), rtol=0, atol=1e-11)


def test_a_surface_is_stored_and_read_again() -> None:
    found = Bowl().surface(grid=(3, 2), mark={"more": torch.zeros(8, dtype=torch.float64)})
    stored = json.loads(json.dumps(found.to_dict()))
    again = cl.Surface.from_dict(stored)
    assert again.to_dict() == stored
    assert again.marks == found.marks
    assert again.to_frame().equals(found.to_frame())
    assert (found.n, found.dtype) == ({"train": 3}, "float64")
    found.plot()
    with pytest.raises(UsageError, match="no test_loss here; there is train_loss"):
        found.plot(split="test")


def test_what_is_no_surface_is_refused_with_a_reason() -> None:
    a, b, c = (small_net(seed).double() for seed in range(3))
    plane = cl.plane(a, b, c)
    refused: list[tuple[cl.Subspace, Any, dict[str, Any], type[Exception], str]] = [
        (cl.line(a, b), TRAIN, {}, UsageError, "a surface needs a plane, not a line"),
        (plane, TRAIN, {"grid": (1, 5)}, UsageError, "at least two columns"),
        (plane, TRAIN, {"margin": -0.1}, UsageError, "a margin is a share of the box, from 0 on, not -0.1"),
        (plane, TRAIN, {"margin": float("nan")}, UsageError, "not nan"),
        (plane, TRAIN, {"tolerance": 0.0}, UsageError, "a tolerance is a share of the loss above 0"),
        (plane, TRAIN, {"tolerance": float("nan")}, UsageError, "a tolerance is a share of the loss above 0"),
        (plane, {"test": TRAIN}, {}, UsageError, "pass stats_loader"),
        (plane, {"test": iter(TRAIN)}, {}, LoaderError, "test is a one-shot"),
        (plane, TRAIN, {"mark": {"x": torch.zeros(4)}}, MismatchError, "4 entries for a space of 852"),
        (plane, TRAIN, {"batch_stats": "interpolate"}, UsageError, "ends; on a plane use 'recompute'"),
    ]
    for subspace, splits, options, error, message in refused:
        with pytest.raises(error, match=message):
            cl.surface(a, subspace, splits, **options)

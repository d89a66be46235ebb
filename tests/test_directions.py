"""Random and sharpest directions against explicit loops and dense Hessians; surfaces along them, cell by cell."""

import builtins
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import closerlook as cl
from closerlook import figures
from closerlook.batches import Output
from closerlook.errors import UsageError
from conftest import Batch, digit_batches, small_net
from untouched import everything, same

EXACT = 1e-12  # of numbers of size 1 to 10 in float64
TRAIN = digit_batches(60, 30, dtype=torch.float64)
BATCH = [(torch.zeros(3, 1), torch.zeros(3))]


def by_hand(model: nn.Module, seed: int, by: str) -> list[Tensor]:
    """Li et al.'s normalisation with loops over tensors and filters."""
    source = torch.Generator().manual_seed(seed)
    size = sum(value.numel() for value in model.parameters())
    found = []
    for _ in range(2):
        drawn, parts = torch.randn(size, generator=source, dtype=torch.float64), []
        for weight in model.parameters():
            d, drawn = drawn[: weight.numel()].reshape(weight.shape).clone(), drawn[weight.numel() :]
            if by == "filter" and weight.dim() > 1:
                for filter_d, filter_w in zip(d, weight.detach(), strict=True):
                    filter_d.mul_(filter_w.norm() / (filter_d.norm() + 1e-10))
            elif by == "layer" and weight.dim() > 1:
                d.mul_(weight.detach().norm() / (d.norm() + 1e-10))
            elif by != "none":
                d.fill_(0)
            parts.append(d.flatten())
        found.append(torch.cat(parts))
    return found


@pytest.mark.parametrize("by", ["filter", "layer", "none"])
def test_random_directions_are_those_of_explicit_loops(by: Any) -> None:
    model = small_net(3).double()
    found = cl.random_directions(model, normalise=by, seed=5)
    assert torch.allclose(found.vectors, torch.stack(by_hand(model, 5, by)), rtol=0, atol=EXACT)
    assert found.reach == (1.0, 1.0)
    assert not torch.equal(found.vectors[0], found.vectors[1])


@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
def test_every_filter_of_a_direction_is_as_long_as_that_of_the_weights(seed: int, scale: float) -> None:
    model = small_net(seed % 7).double()
    with torch.no_grad():
        model.conv2.weight.mul_(scale)
        model.conv1.weight[2] = 0.0
    for direction in cl.random_directions(model, seed=seed).vectors:
        state = cl.WeightSpace(model).state_dict(cl.Point(direction))
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                norms = [value.detach().flatten(1).norm(dim=1) for value in (state[name], weight)]
                # The 1e-10 under the fraction, over a norm of random numbers of 1 or more.
                assert torch.allclose(norms[0], norms[1], rtol=1e-9, atol=0)
            else:
                assert not state[name].any()


def test_directions_follow_the_seed_and_not_the_type_or_the_global_generator() -> None:
    model = small_net()
    before = everything(model)
    first = cl.random_directions(model, seed=1)
    torch.manual_seed(99)
    assert torch.equal(cl.random_directions(model, seed=1).vectors, first.vectors)
    assert not torch.allclose(cl.random_directions(model, seed=2).vectors, first.vectors)
    torch.manual_seed(0)
    double = cl.random_directions(small_net().double(), seed=1).vectors
    assert torch.allclose(double, first.vectors, rtol=0, atol=EXACT)
    before["generators"] = everything(model)["generators"]  # they were set above
    assert same(before, everything(model))


def test_the_cosine_and_the_norms_are_told() -> None:
    found = cl.random_directions(small_net().double())
    a, b = found.vectors.numpy()
    assert found.norms == pytest.approx((np.linalg.norm(a), np.linalg.norm(b)), rel=EXACT)
    assert found.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=EXACT)
    assert 0 < abs(found.cosine) < 5 / 842**0.5
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["kind"], told["normalise"], told["seed"], told["cosine"]) == ("random", "filter", 0, found.cosine)
    frame = found.to_frame()
    weights = {name: float(value.detach().norm()) for name, value in small_net().double().named_parameters()}
    assert dict(zip(frame["parameter"], frame["weights"], strict=True)) == pytest.approx(weights, rel=EXACT)
    assert (frame["d_1"] ** 2).sum() == pytest.approx(found.norms[0] ** 2, rel=EXACT)
    lines = found.plot().get_lines()
    assert lines[0].get_ydata().sum() == pytest.approx(1, abs=EXACT)


class Quadratic:
    """The loss w'Aw / 2 + b'w + 5 on the 8 weights of a linear layer, with planted eigenvalues."""

    def __init__(self) -> None:
        source = torch.Generator().manual_seed(1)
        self.values = torch.tensor([9.0, 4.0, 1.0, 0.5, 0.3, 0.2, 0.1, -2.0], dtype=torch.float64)
        self.axes = torch.linalg.qr(torch.randn(8, 8, generator=source, dtype=torch.float64))[0]
        self.slope = torch.randn(8, generator=source, dtype=torch.float64)
        self.model = nn.Linear(3, 2).double()
        with torch.no_grad():
            for value in self.model.parameters():
                value.copy_(torch.randn(value.shape, generator=source, dtype=torch.float64))
        self.w = torch.cat([value.detach().flatten() for value in self.model.parameters()])

    def __call__(self, model: nn.Module, batch: Batch) -> Output:
        w = torch.cat([value.reshape(-1) for value in model.parameters()])
        return Output(self.at(w).expand(len(batch[0])), None)

    def at(self, w: Tensor) -> Tensor:
        return (self.values * (self.axes.T @ w) ** 2).sum() / 2 + self.slope @ w + 5


def test_the_sharpest_directions_are_the_top_eigenvectors() -> None:
    loss = Quadratic()
    found = cl.hessian_directions(loss.model, BATCH, batch_fn=loss, tolerance=1e-13)
    units = found.vectors / torch.tensor(found.norms, dtype=torch.float64)[:, None]
    for unit, axis in zip(units, loss.axes.T, strict=False):
        assert abs(float(unit @ axis)) == pytest.approx(1, abs=EXACT)
    assert found.cosine == pytest.approx(0, abs=EXACT)
    assert found.told["values"] == pytest.approx([9, 4], rel=EXACT)
    assert found.reach == pytest.approx(found.norms, rel=EXACT)


def test_directions_at_other_weights_than_the_models() -> None:
    model, other = small_net(0).double(), small_net(1).double()
    here, there = cl.hessian_directions(other, TRAIN), cl.hessian_directions(model, TRAIN, other)
    assert torch.allclose(here.vectors, there.vectors, rtol=0, atol=1e-9)
    assert torch.equal(there.origin.vector, cl.WeightSpace(other).point(other).vector)
    random = cl.random_directions(model, other, seed=3)
    assert torch.equal(random.vectors, cl.random_directions(other, seed=3).vectors)
    part = cl.hessian_directions(model, TRAIN, cl.WeightSpace(other, "head.*").point(other), params="head.*")
    assert part.vectors.shape == (2, 330)


@pytest.mark.parametrize("kind", ["random", "hessian"])
def test_every_cell_holds_the_loss_at_its_multiples(kind: str) -> None:
    loss = Quadratic()
    if kind == "random":
        found = cl.random_directions(loss.model, normalise="none", seed=2)
        d = found.vectors
    else:
        found = cl.hessian_directions(loss.model, BATCH, batch_fn=loss)
        d = found.vectors / torch.tensor(found.norms, dtype=torch.float64)[:, None]
    surface = cl.surface(loss.model, found, BATCH, grid=(5, 3), radius=0.5, batch_fn=loss)
    assert surface.x.tolist() == pytest.approx(np.linspace(-0.5, 0.5, 5), abs=EXACT)
    assert surface.y.tolist() == pytest.approx(np.linspace(-0.5, 0.5, 3), abs=EXACT)
    for row, y in enumerate(surface.y):
        for column, x in enumerate(surface.x):
            expected = float(loss.at(loss.w + x * d[0] + y * d[1]))
            assert surface.values["train_loss"][row, column] == pytest.approx(expected, abs=100 * EXACT)
    assert np.abs(np.diff(surface.values["train_loss"], axis=0)).min() > 1e-3
    assert surface.unit == (pytest.approx(np.mean(found.norms)) if kind == "random" else 1.0)
    assert list(surface.marks) == ["w_0"]


def test_marks_are_placed_in_multiples_and_their_distance_is_one_of_weights() -> None:
    loss = Quadratic()
    found = cl.random_directions(loss.model, normalise="none", seed=2)
    a, b = found.vectors
    normal = torch.linalg.qr(torch.stack([a, b, loss.slope]).T)[0][:, 2]
    plane = found.plane()
    assert torch.equal(plane.at([0, 0]).vector, loss.w)
    assert torch.allclose(plane.at([2, -3]).vector, loss.w + 2 * a - 3 * b, rtol=0, atol=20 * EXACT)
    surface = cl.surface(
        loss.model, found, BATCH, grid=(2, 2), batch_fn=loss, mark={"far": loss.w + 2 * a - 3 * b + 7 * normal}
    )
    mark = surface.marks["far"]
    assert (mark.x, mark.y, mark.distance) == pytest.approx((2, -3, 7), abs=100 * EXACT)
    # The box is that of the radius and of what is marked, without a margin.
    assert (surface.x[[0, -1]].tolist(), surface.y[[0, -1]].tolist()) == (
        pytest.approx([-1, 2], abs=100 * EXACT), pytest.approx([-3, 1], abs=100 * EXACT),
    )  # fmt: skip


def test_a_surface_around_a_point_is_stored_resumed_and_read_again(tmp_path: Path) -> None:
    model = small_net().double()
    found = cl.surface(model, cl.random_directions(model), TRAIN, grid=(3, 3), out=tmp_path / "cells")
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["axes"] == ["multiples of a random direction", "multiples of another"]
    again = cl.Surface.from_dict(stored)
    assert (again.to_dict(), again.axes, again.unit) == (stored, found.axes, found.unit)
    ax = again.plot()
    assert (ax.get_xlabel(), ax.get_ylabel()) == found.axes
    with pytest.raises(cl.CloserlookError, match=r"another|other"):
        cl.surface(model, cl.random_directions(model, seed=1), TRAIN, grid=(3, 3), out=tmp_path / "cells")


def test_a_plane_through_three_points_is_stored_as_before() -> None:
    models = [small_net(seed).double() for seed in range(3)]
    stored = cl.surface(models[0], cl.plane(*models), TRAIN, grid=(2, 2)).to_dict()
    assert list(stored) == [
        "x", "y", "n", "values", "marks", "batch_stats", "dtype", "was_read", "told", "precision_errors",
    ]  # fmt: skip


def test_reading_around_a_point_leaves_the_model_as_it_is() -> None:
    model = small_net().double()
    before = everything(model, TRAIN)
    cl.surface(model, cl.random_directions(model), TRAIN, grid=(2, 2))
    cl.hessian_directions(model, TRAIN)
    assert same(before, everything(model, TRAIN))


def test_what_cannot_be_moved_along_is_refused() -> None:
    model, flat = small_net(), nn.LayerNorm(4)
    a, b = small_net(1), small_net(2)
    refused: list[tuple[Any, str]] = [
        (lambda: cl.random_directions(model, normalise="filters"), "normalise='filters' is none of filter, layer"),
        (lambda: cl.random_directions(flat), "leaves nothing to move: of weight, bias none has two dimensions"),
        (lambda: cl.surface(model, cl.random_directions(model), TRAIN, radius=0.0), "a radius is a number above 0"),
        (lambda: cl.surface(model, cl.random_directions(model), TRAIN, radius=float("nan")), "not nan"),
        (lambda: cl.surface(model, cl.plane(model, a, b), TRAIN, radius=1.0), "a radius is for directions from one"),
    ]
    for call, message in refused:
        with pytest.raises(UsageError, match=re.escape(message)):
            call()


# The page to turn a surface in -----------------------------------------------------------------------------------


class Loads(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "data")]


def page_of(name: str = "w_0", **settings: Any) -> str:
    pytest.importorskip("plotly")
    z = [[1.0, 2, 3], [4, np.nan, 6]]
    run = (np.array([[0, 0], [1, 1]]), np.array([0.5, 0]))
    return figures.interactive([0, 1, 2], [0, 1], z, {name: (1, 0, 2)}, trajectory=run, **settings)


def test_the_page_is_one_file_equal_each_time_that_fetches_nothing() -> None:
    page = page_of()
    assert page == page_of()
    reader = Loads()
    reader.feed(page)
    assert reader.found == []
    assert "plotly.js v" in page[:20_000]
    assert len(page) > 1_000_000


def test_names_and_units_cannot_become_tags() -> None:
    hostile = '<img src=x onerror="alert(1)"></script>'
    page = page_of(hostile, metric=hostile, split=hostile, axes=(hostile, "y"))
    drawn = page[page.rindex("Plotly.newPlot") :]
    assert "<img" not in drawn
    assert drawn.count("</script>") == page_of()[page_of().rindex("Plotly.newPlot") :].count("</script>")


def test_heights_are_the_surfaces_own_at_its_nodes_and_between_them() -> None:
    from closerlook.figures.interactive import _on

    x, y = np.array([0.0, 1, 3]), np.array([0.0, 2])
    plane = 2 + 0.5 * x[None] - 0.25 * y[:, None]
    places = np.array([[0, 0], [3, 2], [0.5, 1], [2, 0.5], [1, 2]])
    lift = 0.01 * np.ptp(plane)
    expected = 2 + 0.5 * places[:, 0] - 0.25 * places[:, 1] + lift
    assert np.allclose(_on(x, y, plane, places), expected, rtol=0, atol=EXACT)


def test_a_surface_writes_its_page(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    found = cl.surface(small_net().double(), cl.random_directions(small_net().double()), TRAIN, grid=(3, 2))
    path = found.interactive(tmp_path / "s.html")
    assert path.read_text().count("multiples of a random direction") == 1
    with pytest.raises(UsageError, match="no test_loss here"):
        found.interactive(tmp_path / "t.html", split="test")


def test_without_plotly_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("plotly"):
            raise ImportError(name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=re.escape("pip install 'closerlook[plotly]'")):
        figures.interactive([0, 1], [0, 1], [[1, 2], [3, 4]])

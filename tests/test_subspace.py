"""Lines, curves, planes and simplices: coefficients, points, projections and lengths, in float64."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import closerlook as cl
from closerlook.errors import MismatchError, UsageError
from closerlook.landscape.nearest import nearest_on_bezier
from closerlook.landscape.subspace import combine
from conftest import small_net

# A few float64 operations on numbers of size 1.
EXACT = 1e-12
D = 30


def points(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Random vectors [D]: nearly orthogonal, so that no triple is close to a line."""
    source = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, D, generator=source, dtype=torch.float64).to(dtype))


def de_casteljau(control: list[Tensor], t: float) -> Tensor:
    """The point of a Bezier curve by repeated interpolation: no binomials."""
    while len(control) > 1:
        control = [(1 - t) * a + t * b for a, b in pairwise(control)]
    return control[0]


def walk(corners: list[Tensor], t: float) -> Tensor:
    """The point of a polygonal chain: which segment, and how far along it."""
    position = t * (len(corners) - 1)
    segment = min(math.floor(position), len(corners) - 2)
    share = position - segment
    return corners[segment] + share * (corners[segment + 1] - corners[segment])


CURVES = {"polychain": (cl.polychain, walk), "bezier": (cl.bezier, de_casteljau)}
unit = st.floats(0, 1)


@pytest.mark.parametrize("kind", CURVES)
@given(t=unit, count=st.integers(2, 6))
def test_a_curve_is_where_its_definition_puts_it(kind: str, t: float, count: int) -> None:
    make, by_hand = CURVES[kind]
    curve = make(points(count))
    assert torch.allclose(curve.at(t).vector, by_hand(points(count), t), rtol=0, atol=EXACT)


@given(t=unit)
def test_a_line_is_both_curves_of_two_points(t: float) -> None:
    ends = points(2)
    expected = [[1 - t, t]]
    for make in (lambda ends: cl.line(*ends), cl.polychain, cl.bezier):
        assert np.allclose(make(ends).coefficients([t]), expected, rtol=0, atol=EXACT)


@given(st.sampled_from(["line", "polychain", "bezier"]), st.lists(unit, min_size=1, max_size=5), st.integers(2, 6))
def test_coefficients_of_a_curve_are_a_partition_of_unity(kind: str, t: list[float], count: int) -> None:
    curve = cl.line(*points(2)) if kind == "line" else CURVES[kind][0](points(count))
    found = curve.coefficients(t)
    assert found.shape == (len(t), len(curve.points))
    assert found.dtype == np.float64
    assert (found >= 0).all()
    assert np.allclose(found.sum(1), 1, rtol=0, atol=EXACT)
    assert np.array_equal(found, curve.coefficients(np.array(t)[:, None]))


def test_bends_of_a_chain_are_reached_at_equal_steps() -> None:
    assert cl.polychain(points(4)).coefficients(np.linspace(0, 1, 4)) == pytest.approx(np.eye(4), abs=EXACT)
    assert cl.bezier(points(3)).coefficients([0.5]).tolist() == [[0.25, 0.5, 0.25]]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["line", "polychain", "bezier"])
def test_the_ends_are_the_end_networks_bit_for_bit(
    kind: str, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    networks = [small_net(seed).to(dtype, memory_format=memory_format) for seed in range(4)]
    # -0 + 0 * 1 is +0: a sum over all points would not give the ends' own bits.
    for number, net in enumerate(networks):
        net.head.bias.data[:2] = torch.tensor([-0.0 if number == 0 else 1.0, -0.0 if number == 3 else 1.0])
    curve = cl.line(networks[0], networks[3]) if kind == "line" else CURVES[kind][0](networks)
    for t, network in ((0, networks[0]), (1, networks[3])):
        expected = torch.cat([value.detach().reshape(-1) for value in network.parameters()])
        found = curve.at(t).vector
        assert found.dtype == dtype
        assert found.numpy().tobytes() == expected.numpy().tobytes()


def axes(p: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The orthonormal axes of the plane: along w_2 - w_0, and the rest of w_1 - w_0 (QR)."""
    q, r = torch.linalg.qr(torch.stack([p[2] - p[0], p[1] - p[0]], dim=1))
    q = q * torch.sign(torch.diagonal(r))
    return q[:, 0], q[:, 1]


coordinate = st.floats(-20, 20)


@given(coordinate, coordinate, st.integers(0, 50))
def test_a_plane_has_orthonormal_axes_from_its_first_point(x: float, y: float, seed: int) -> None:
    p = points(3, seed)
    flat, (u, v) = cl.plane(*p), axes(p)
    # Coordinates up to 20 on vectors of length 6.
    assert torch.allclose(flat.at([x, y]).vector, p[0] + x * u + y * v, rtol=0, atol=10 * EXACT)
    assert flat.coefficients([[x, y]]).sum() == pytest.approx(1, abs=10 * EXACT)


def test_the_points_of_a_plane_come_out_exactly() -> None:
    p = points(3, dtype=torch.float32)
    flat = cl.plane(*p)
    length, along, height = flat._axes()
    for coords, expected in (([0, 0], p[0]), ([along, height], p[1]), ([length, 0], p[2])):
        assert torch.equal(flat.at(coords).vector, expected)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=5))
def test_a_simplex_mixes_by_barycentric_coordinates(weights: list[float]) -> None:
    shares = np.array(weights) / sum(weights)
    p = points(len(shares))
    expected = sum(share * vector for share, vector in zip(shares.tolist(), p, strict=True))
    mixed = cl.simplex(p)
    assert torch.allclose(mixed.at(shares).vector, expected, rtol=0, atol=EXACT)
    found, off = mixed.project(mixed.at(shares))
    # Inner products of size 30 lose two digits, and the solve one or two more.
    assert np.allclose(found, shares, rtol=0, atol=1e-11)
    assert off < 1e-11


# Projections ---------------------------------------------------------------------------------------------------------


@given(coordinate, coordinate, st.floats(0, 50), st.integers(0, 50))
def test_projecting_on_a_plane_undoes_at_and_finds_the_distance(x: float, y: float, height: float, seed: int) -> None:
    p = points(3, seed)
    flat, (u, v) = cl.plane(*p), axes(p)
    normal = points(1, seed + 1000)[0]
    normal = normal - (normal @ u) * u - (normal @ v) * v
    w = flat.at([x, y]).vector + height * normal / normal.norm()
    found, off = flat.project(w)
    # Squares up to 50^2 in float64: 3e-13, times the condition of three random points (below 10).
    assert np.allclose(found, [x, y], rtol=0, atol=1e-11)
    assert off == pytest.approx(height, abs=1e-11)
    assert torch.allclose(flat.at(found).vector, flat.at([x, y]).vector, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["line", "polychain", "bezier"])
@given(t=unit, count=st.integers(2, 5), seed=st.integers(0, 30))
def test_projecting_a_point_of_a_curve_gives_its_t(kind: str, t: float, count: int, seed: int) -> None:
    curve = cl.line(*points(2, seed)) if kind == "line" else CURVES[kind][0](points(count, seed))
    (found,), off = curve.project(curve.at(t))
    # A Bezier curve's candidates are compared by their squared distances: an end 1e-8 away may pass for the root.
    allowed = 1e-6 if kind == "bezier" else EXACT
    assert off < allowed
    assert found == pytest.approx(t, abs=allowed)
    assert torch.allclose(curve.at(found).vector, curve.at(t).vector, rtol=0, atol=allowed)


@settings(max_examples=25)
@given(kind=st.sampled_from(["line", "polychain", "bezier"]), count=st.integers(2, 5), seed=st.integers(0, 200))
def test_the_nearest_t_is_that_of_a_dense_search(kind: str, count: int, seed: int) -> None:
    control = points(count, seed) if kind != "line" else points(2, seed)
    curve = cl.line(*control) if kind == "line" else CURVES[kind][0](control)
    w = points(1, seed + 500)[0] + sum(control) / len(control)
    grid = np.linspace(0, 1, 4001)
    dense = torch.from_numpy(curve.coefficients(grid)) @ torch.stack(control)
    distances = (dense - w).norm(dim=1)
    (t,), off = curve.project(w)
    assert torch.allclose(torch.tensor(off, dtype=torch.float64), (curve.at(t).vector - w).norm(), rtol=0, atol=EXACT)
    # No point of the grid is nearer, and the nearest of the grid is hardly farther: steps are below 60 / 4000.
    assert off <= float(distances.min()) + EXACT
    assert off >= float(distances.min()) - 0.02


def test_the_nearest_point_may_be_an_end_or_a_corner() -> None:
    x, y = torch.eye(2, dtype=torch.float64)
    chain = cl.polychain([-x, y, x])
    for w, t, off in ((-3 * x, 0.0, 2.0), (2 * x, 1.0, 1.0), (4 * y, 0.5, 3.0)):
        assert chain.project(w) == (pytest.approx([t], abs=EXACT), pytest.approx(off, abs=EXACT))
    curve = cl.bezier([-x, y, x])
    for w, t, off in ((-3 * x, 0.0, 2.0), (2 * x, 1.0, 1.0), (4 * y, 0.5, 3.5)):
        assert curve.project(w) == (pytest.approx([t], abs=EXACT), pytest.approx(off, abs=EXACT))


def test_curves_without_a_bend_in_them_are_projected_on_as_well() -> None:
    a, b = points(2)
    straight = cl.bezier([a, (a + b) / 2, b])  # its highest powers vanish
    (t,), off = straight.project(straight.at(0.3))
    assert t == pytest.approx(0.3, abs=EXACT)
    assert off < EXACT
    for make in CURVES.values():
        still = make[0]([a, a, a])
        assert still.project(b)[1] == pytest.approx(float((a - b).norm()), abs=EXACT)
    assert nearest_on_bezier(np.zeros((3, 3)), 3).shape == (1,)


def test_what_is_projected_must_fit() -> None:
    flat = cl.plane(*points(3))
    with pytest.raises(MismatchError, match="point 1 has 5 weights, point 0 has 30"):
        flat.project(torch.zeros(5, dtype=torch.float64))
    with pytest.raises(UsageError, match="NaN"):
        flat.project(torch.full((D,), math.nan, dtype=torch.float64))


# Lengths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CURVES)
@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_the_length_is_that_of_a_dense_polyline(kind: str, count: int) -> None:
    make, by_hand = CURVES[kind]
    control = points(count, seed=count)
    grid = np.linspace(0, 1, 60 * 50 + 1)  # corners of every chain here lie on it
    dense = torch.stack([by_hand(control, t) for t in grid])
    polyline = float((dense[1:] - dense[:-1]).norm(dim=1).sum())
    # A polyline of 3000 chords is too short by about 1 / (24 * 3000^2) of its length: 5e-9, times the curvature.
    assert make(control).length() == pytest.approx(polyline, rel=1e-6)


def test_the_length_of_a_known_curve() -> None:
    # y = x^2 from -1 to 1 is a Bezier curve; its length is sqrt(5) + asinh(2) / 2.
    x, y = torch.eye(2, dtype=torch.float64)
    assert cl.bezier([-x + y, -y, x + y]).length() == pytest.approx(math.sqrt(5) + math.asinh(2) / 2, abs=EXACT)
    assert cl.line(*points(2)).length() == pytest.approx(float((points(2)[0] - points(2)[1]).norm()), abs=EXACT)


@pytest.mark.parametrize("kind", CURVES)
def test_steps_are_the_distances_between_neighbours(kind: str) -> None:
    curve, t = CURVES[kind][0](points(4)), [0.0, 0.1, 0.15, 0.6, 1.0]
    found = curve.steps(t)
    vectors = [curve.at(value).vector for value in t]
    assert found[0] == 0
    for step, a, b in zip(found[1:], vectors[:-1], vectors[1:], strict=True):
        assert step == pytest.approx(float((a - b).norm()), abs=EXACT)


def test_norms_are_summed_in_float64() -> None:
    source = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3_000_000, generator=source) for _ in range(2))
    exact = float((a.double() - b.double()).norm())
    assert cl.line(a, b).length() == pytest.approx(exact, rel=EXACT)
    assert cl.bezier([a, b]).length() == pytest.approx(exact, rel=EXACT)


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("third", [lambda a, b: a, lambda a, b: b, lambda a, b: a + 3 * (b - a)])
def test_points_on_one_line_span_no_plane(third) -> None:
    a, b = points(2)
    for order in ((a, b, third(a, b)), (a, third(a, b), b), (third(a, b), a, b)):
        with pytest.raises(UsageError, match="lie on one line"):
            cl.plane(*order)


def test_points_that_do_not_belong_together_are_refused() -> None:
    a, b = points(2)
    with pytest.raises(MismatchError, match="point 1 has 5 weights, point 0 has 30"):
        cl.line(a, b[:5])
    with pytest.raises(MismatchError, match=r"point 1 is torch\.float32, point 0 is torch\.float64: rounding"):
        cl.line(a, b.float())
    with pytest.raises(UsageError, match="at least two points"):
        cl.polychain([a])
    with pytest.raises(UsageError, match=r"a OrderedDict is no point .* use closerlook\.WeightSpace"):
        cl.line(a, nn.Linear(2, 2).state_dict())  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_points_of_a_diverged_run_are_refused(bad: float) -> None:
    a, b = points(2)
    b[7] = bad
    with pytest.raises(UsageError, match=r"point 1 \(run 7\) holds NaN or infinite weights; did that run diverge"):
        cl.line(a, cl.Point(b, origin="run 7"))


def test_coordinates_that_do_not_belong_to_the_subspace_are_refused() -> None:
    line, flat, mixed = cl.line(*points(2)), cl.plane(*points(3)), cl.simplex(points(3))
    for t in (-0.01, 1.01, math.nan):
        with pytest.raises(UsageError, match=r"a line has t in \[0, 1\]"):
            line.coefficients([0.5, t])
    with pytest.raises(UsageError, match=r"of a line have the shape \[m, 1\], not \[1, 2\]"):
        line.at([0.1, 0.2])
    with pytest.raises(UsageError, match=r"of a plane have the shape \[m, 2\], not \[3\]"):
        flat.coefficients([0.1, 0.2, 0.3])
    with pytest.raises(UsageError, match="sum to 1"):
        mixed.coefficients([[0.5, 0.5, 0.5]])
    for shape in (flat, mixed):
        with pytest.raises(UsageError, match=f"a {shape.kind} has no length"):
            shape.length()


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=5), st.booleans(), st.integers(0, 99))
def test_any_coefficients_combine_to_the_sum(weights: list[float], shares: bool, seed: int) -> None:
    c = np.array(weights)
    if shares:  # these are interpolated, others summed
        c = np.abs(c) / np.abs(c).sum() if np.abs(c).sum() > 1e-3 else np.eye(len(c))[0]
    if not c.any():
        return
    vectors = torch.randn(len(c), 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    out = torch.empty(7, dtype=torch.float64)
    found = combine(c, list(vectors), out=out)
    assert found is out
    assert np.allclose(out.numpy(), c @ vectors.numpy(), rtol=0, atol=1e-13)
    assert torch.equal(combine(c, list(vectors)), out)

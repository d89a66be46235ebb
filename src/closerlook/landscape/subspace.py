"""Lines, curves, planes and simplices: control points and a rule from a coordinate to coefficients.

``w = coefficients @ points``. Line and polygonal chain use hat functions, Bezier curves Bernstein
polynomials, planes affine coefficients, directions multiples, simplices barycentric ones (Garipov et al. 2018, arXiv
1802.10026; Benton et al. 2021, arXiv 2102.13042). Sums over weights run in float64.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import comb
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from closerlook.errors import MismatchError, UsageError
from closerlook.landscape.nearest import nearest_on_bezier, nearest_on_chain, nearest_on_span
from closerlook.weights import Point, WeightSpace, distance, gram

Kind = Literal["line", "polychain", "bezier", "plane", "directions", "simplex"]
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Subspace:
    """K control points of weight space and the rule that mixes them.

    `.free` are the indices of the points that `connect` trained; `.history` and `.snapshots` are its record. Of
    directions, `.reach` says which coordinates p_1 and p_2 have on their axes.
    """

    kind: Kind
    points: tuple[Point, ...]
    free: tuple[int, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    snapshots: Mapping[int, "Subspace"] = field(default_factory=dict)
    reach: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        check_points(self.points, self.free)
        first, *others = [point.vector for point in self.points]
        object.__setattr__(self, "_gram", gram(others, origin=first).numpy())
        if self.is_flat:
            _check_plane(self._differences)

    @property
    def _differences(self) -> Array:
        return self.__dict__["_gram"]

    @property
    def is_curve(self) -> bool:
        """Whether one coordinate t in [0, 1] describes it."""
        return self.kind in ("line", "polychain", "bezier")

    @property
    def is_flat(self) -> bool:
        """Whether two coordinates that may take any value describe it."""
        return self.kind in ("plane", "directions")

    def coefficients(self, coords: ArrayLike) -> Array:
        """Coefficients [m, K] in float64 of coordinates [m, k].

        k = 1, t in [0, 1], for line, chain and Bezier ([m] is accepted); k = 2 for a plane, distances along
        its orthonormal axes from the first point, or for directions as multiples of them; k = K for a simplex,
        barycentric.

        Raises
        ------
        UsageError
            Coordinates of the wrong width, outside [0, 1] for a curve, or not summing to 1 for a simplex.

        Examples
        --------
        >>> line(torch.zeros(2), torch.ones(2)).coefficients([0.25])
        array([[0.75, 0.25]])
        """
        x = self._coordinates(coords)
        count = len(self.points)
        if self.kind == "plane":
            return self._affine(x)
        if self.kind == "directions":
            multiples = x / self.reach
            return np.column_stack([1 - multiples.sum(1), multiples])
        if self.kind == "simplex":
            return x
        if self.kind == "bezier":
            bernstein = [comb(count - 1, i) * x**i * (1 - x) ** (count - 1 - i) for i in range(count)]
            return np.concatenate(bernstein, axis=1)
        return np.maximum(0.0, 1 - np.abs(x * (count - 1) - np.arange(count)))

    def at(self, coord: ArrayLike) -> Point:
        """The point at one coordinate; at a control point exactly that vector."""
        row = self.coefficients(np.reshape(np.asarray(coord, float), (1, -1)))[0]
        return Point(combine(row, [point.vector for point in self.points]))

    def average(self, coords: ArrayLike) -> Point:
        """The mean of the points at some coordinates: one point, that of the mean of their coefficients.

        A bare vector, as from `at`: `closerlook.with_statistics` gives it batch-norm statistics.

        Examples
        --------
        >>> line(torch.zeros(2), torch.ones(2)).average([0.25, 0.5]).vector
        tensor([0.3750, 0.3750])
        """
        rows = self.coefficients(coords)
        if not len(rows):
            raise UsageError("there is no point to average; give at least one coordinate")
        return Point(combine(rows.mean(0), [point.vector for point in self.points]), origin=f"mean of {len(rows)}")

    def project(self, w: Point | Tensor) -> tuple[Array, float]:
        """Coordinates of the nearest point, and the distance to it: of the span for planes and simplices."""
        vector = _as_point(w).vector
        check_points((self.points[0], Point(vector.to(self.points[0].dtype))))
        first, *others = [point.vector for point in self.points]
        inner = gram([*others, vector], origin=first).numpy()
        if self.kind == "bezier":
            coords = nearest_on_bezier(inner, len(self.points))
        elif self.is_curve:
            coords = nearest_on_chain(inner)
        else:
            weights = nearest_on_span(inner)
            coords = self._flat_coords(weights) if self.is_flat else np.array([1 - weights.sum(), *weights])
        nearest = combine(self.coefficients(coords[None])[0], [point.vector.double() for point in self.points])
        return coords, distance(nearest, vector)

    def length(self) -> float:
        """Length of the curve in weight space (Euclidean, float64).

        Raises
        ------
        UsageError
            For a plane or a simplex.
        """
        if not self.is_curve:
            raise UsageError(f"a {self.kind} has no length; project points on it, or take a curve")
        if self.kind == "bezier":
            # The speed is the root of a polynomial: 64 Gauss-Legendre nodes integrate it to rounding error.
            nodes, weights = np.polynomial.legendre.leggauss(64)
            return float(weights / 2 @ self._speed((nodes + 1) / 2))
        vectors = [point.vector for point in self.points]
        return sum(distance(a, b) for a, b in pairwise(vectors))

    def steps(self, coords: ArrayLike) -> Array:
        """Distances [m] in weight space from each coordinate to the next, the first 0."""
        moves = np.diff(self.coefficients(coords), axis=0)[:, 1:]
        squared = np.einsum("mi,ij,mj->m", moves, self._differences, moves)
        return np.concatenate([[0.0], np.sqrt(np.maximum(squared, 0.0))])

    def _speed(self, t: Array) -> Array:
        n = len(self.points) - 1
        bernstein = np.stack([comb(n - 1, i) * t**i * (1 - t) ** (n - 1 - i) for i in range(n)], axis=1)
        # w'(t) = n sum_i b_i(t) (p_{i+1} - p_i); column i of `steps` writes that difference in p_j - p_0.
        steps = np.eye(n) - np.eye(n, k=1)
        rows = n * bernstein @ steps.T
        return np.sqrt(np.maximum(np.einsum("mi,ij,mj->m", rows, self._differences, rows), 0.0))

    def _coordinates(self, coords: ArrayLike) -> Array:
        x = np.asarray(coords, dtype=np.float64)
        width = 1 if self.is_curve else 2 if self.is_flat else len(self.points)
        x = x[:, None] if x.ndim == 1 and width == 1 else x
        if x.ndim != 2 or x.shape[1] != width:
            raise UsageError(f"coordinates of a {self.kind} have the shape [m, {width}], not {list(x.shape)}")
        if self.is_curve and not np.all((x >= 0) & (x <= 1)):
            raise UsageError(f"a {self.kind} has t in [0, 1]; got {x.min():.3g} to {x.max():.3g}")
        if self.kind == "simplex" and not np.allclose(x.sum(1), 1, atol=1e-9):
            raise UsageError("barycentric coordinates sum to 1")
        return x

    def _axes(self) -> tuple[float, float, float]:
        inner = self._differences
        length = np.sqrt(inner[1, 1])
        along = inner[0, 1] / length
        return float(length), float(along), float(np.sqrt(inner[0, 0] - along**2))

    def _affine(self, x: Array) -> Array:
        # u = (w_2 - w_0) / length; v = ((w_1 - w_0) - along u) / height
        length, along, height = self._axes()
        one = x[:, 1] / height
        two = (x[:, 0] - along * one) / length
        return np.stack([1 - one - two, one, two], axis=1)

    def _flat_coords(self, weights: Array) -> Array:
        if self.kind == "directions":
            return weights * self.reach
        length, along, height = self._axes()
        return np.array([weights[1] * length + weights[0] * along, weights[0] * height])


def combine(coefficients: ArrayLike, vectors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """``sum_i c_i p_i``, skipping zeros, so that a control point comes out exactly as it is.

    Shares that sum to 1 are interpolated one after the other: each further vector is one pass over memory.
    """
    terms = [(float(c), v) for c, v in zip(np.asarray(coefficients), vectors, strict=True) if c != 0]
    (weight, mixed), *rest = terms
    total = torch.empty_like(mixed) if out is None else out
    if not rest or not _are_shares([c for c, _ in terms]):
        torch.mul(mixed, weight, out=total)
        for c, v in rest:
            total.add_(v.to(total.device), alpha=c)
        return total
    for c, v in rest:
        weight += c
        mixed = torch.lerp(mixed, v.to(total.device), c / weight, out=total)
    return total


def _are_shares(coefficients: Sequence[float]) -> bool:
    return min(coefficients) > 0 and abs(sum(coefficients) - 1) < 1e-12


def line(a: Point | Tensor | nn.Module, b: Point | Tensor | nn.Module) -> Subspace:
    """The segment from a (t = 0) to b (t = 1).

    Examples
    --------
    >>> line(torch.zeros(3), torch.ones(3)).at(0.5).vector
    tensor([0.5000, 0.5000, 0.5000])
    """
    return Subspace("line", (_as_point(a), _as_point(b)))


def polychain(points: Sequence[Point | Tensor | nn.Module]) -> Subspace:
    """The polygonal chain through K points, at t = i / (K - 1).

    Examples
    --------
    >>> polychain([torch.zeros(1), torch.ones(1), torch.zeros(1)]).length()
    2.0
    """
    return Subspace("polychain", tuple(map(_as_point, points)))


def bezier(points: Sequence[Point | Tensor | nn.Module]) -> Subspace:
    """The Bezier curve of K control points, ``sum_i C(K-1, i) t^i (1-t)^(K-1-i) p_i``.

    Examples
    --------
    >>> bezier([torch.zeros(1), torch.ones(1), torch.zeros(1)]).at(0.5).vector
    tensor([0.5000])
    """
    return Subspace("bezier", tuple(map(_as_point, points)))


def plane(
    w_0: Point | Tensor | nn.Module, w_1: Point | Tensor | nn.Module, w_2: Point | Tensor | nn.Module
) -> Subspace:
    """The plane through three points: u along w_2 - w_0, v the rest of w_1 - w_0 (Gram-Schmidt).

    Raises
    ------
    UsageError
        The three points lie on one line.

    Examples
    --------
    >>> flat = plane(torch.zeros(2), torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]))
    >>> flat.at([3.0, 4.0]).vector
    tensor([3., 4.])
    """
    return Subspace("plane", tuple(map(_as_point, (w_0, w_1, w_2))))


def simplex(points: Sequence[Point | Tensor | nn.Module]) -> Subspace:
    """All mixtures of K points, with barycentric coordinates.

    Examples
    --------
    >>> simplex([torch.zeros(1), torch.ones(1)]).at([0.5, 0.5]).vector
    tensor([0.5000])
    """
    return Subspace("simplex", tuple(map(_as_point, points)))


def _as_point(w: Any) -> Point:
    if isinstance(w, Point):
        return w
    if isinstance(w, nn.Module):
        return WeightSpace(w).point(w)
    if isinstance(w, Tensor):
        return Point(w.detach().reshape(-1).clone())
    raise UsageError(
        f"a {type(w).__name__} is no point of weight space by itself; use closerlook.WeightSpace(model).point(...)"
    )


def check_points(points: Sequence[Point], free: Sequence[int] = ()) -> None:
    """Refuse points of unequal size or type, and those that hold NaN or infinity unless they are among the `free`."""
    if len(points) < 2:
        raise UsageError("a subspace needs at least two points")
    first = points[0]
    for number, point in enumerate(points):
        if point.vector.shape != first.vector.shape:
            raise MismatchError(
                f"point {number} has {point.vector.numel()} weights, point 0 has {first.vector.numel()}"
            )
        if point.dtype != first.dtype:
            raise MismatchError(
                f"point {number} is {point.dtype}, point 0 is {first.dtype}: rounding alone can look like a barrier; "
                "convert them to one type"
            )
        # A trained point may be NaN: its training diverged, which is a result until someone reads losses there.
        if number not in free and not bool(torch.isfinite(point.vector).all()):
            raise UsageError(f"point {number} ({point.origin}) holds NaN or infinite weights; did that run diverge?")


def _check_plane(inner: Array) -> None:
    parallel = inner[0, 0] * inner[1, 1] - inner[0, 1] ** 2
    if parallel <= 1e-12 * inner[0, 0] * inner[1, 1] or min(inner[0, 0], inner[1, 1]) == 0:
        raise UsageError(
            "the three points lie on one line (or two are equal): they span no plane; choose another third"
        )

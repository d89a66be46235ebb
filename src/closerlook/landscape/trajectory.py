"""A series of checkpoints: how far it moves and turns, and the plane in which it moves most."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor, nn

from closerlook import figures
from closerlook.errors import UsageError
from closerlook.landscape.directions import Directions, along
from closerlook.landscape.subspace import Subspace, check_points
from closerlook.weights import Point, WeightSpace, distance, gram

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """T checkpoints in their order, and the plane of their first two principal components.

    All lengths are L2 norms of weights.

    Attributes
    ----------
    points : the checkpoints by name.
    directions : the components, from the last checkpoint.
    explained : share of the variance in each component, largest first [T - 1].
    coordinates : of each checkpoint along the two, the last at 0 [T, 2].
    off_plane : distance of each checkpoint from the plane [T].
    from_first, from_last, step_length : distances to the first, the last and the previous checkpoint [T].
    turn : cosine between the move to each checkpoint and the next move, NaN at both ends and where nothing moved [T].
    """

    points: Mapping[str, Point]
    directions: Directions
    explained: Array
    coordinates: Array
    off_plane: Array
    from_first: Array
    from_last: Array
    step_length: Array
    turn: Array

    def plane(self) -> Subspace:
        """The plane through the last checkpoint, its coordinates distances along both components."""
        return self.directions.plane()

    def to_frame(self) -> pd.DataFrame:
        """One row per checkpoint."""
        columns = ("from_first", "from_last", "step_length", "turn", "off_plane")
        x, y = self.coordinates.T
        rows = {"checkpoint": list(self.points), **{name: getattr(self, name) for name in columns}, "x": x, "y": y}
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, as JSON takes them; a cosine that is not there is None."""
        frame = self.to_frame().astype(object)
        rows = {str(name): column.where(column.notna(), None).tolist() for name, column in frame.items()}
        return {"explained": self.explained.tolist(), **rows}

    def plot(self, ax: Axes | None = None) -> Axes:
        """The path on its plane, with the share of the variance along each axis and the distances off the plane."""
        return figures.trajectory(self.coordinates, self.off_plane, list(self.points), self.directions.axes, ax=ax)


def trajectory(model: nn.Module, checkpoints: Mapping[Any, Any] | Sequence[Any], *, params: str = "*") -> Trajectory:
    """Distances, turns and the principal plane of a series of checkpoints.

    The components are those of the weights less their mean over all checkpoints, ``w_i - mean(w)``, each checkpoint
    counted once: unit vectors u, v in weight space, from the T x T matrix of inner products, never D x D. The plane
    goes through the *last* checkpoint, so that coordinates are ``(u'(w_i - w_T), v'(w_i - w_T))`` and what the plane
    misses of every other one is its distance off the plane. Signs are such that the largest x is negative and the
    largest y positive, which is left and above of the end. Sums are float64. Each checkpoint is held once, in its own
    type, besides about ten vectors in float64.

    A random walk has a smooth arc for its principal plane too, and its first component explains 61 % of the variance
    (Antognini and Sohl-Dickstein 2018, arXiv 1806.08805): a high share alone says little about the loss.

    Parameters
    ----------
    checkpoints
        In their order, three or more: points, models, state dicts or paths; by name, as in
        `TrainResult.snapshots`, or not.

    Raises
    ------
    UsageError
        Fewer than three, NaN in one of them, or all of them on one line.
    MismatchError
        They do not fit the model or each other.

    Examples
    --------
    >>> model = nn.Linear(2, 1)
    >>> found = trajectory(model, [torch.tensor([0.0, 0, 0]), torch.tensor([3.0, 1, 0]), torch.tensor([6.0, 0, 0])])
    >>> found.coordinates.round(6).tolist(), found.explained.round(2).tolist()
    ([[-6.0, 0.0], [-3.0, 1.0], [0.0, 0.0]], [0.96, 0.04])

    Source: Li et al. 2018 (arXiv 1712.09913), section 7.
    """
    space = WeightSpace(model, params)
    named = checkpoints if isinstance(checkpoints, Mapping) else dict(enumerate(checkpoints))
    points = {str(name): space.point(w) for name, w in named.items()}
    if len(points) < 3:
        raise UsageError(f"a trajectory needs at least three checkpoints, not {len(points)}; between two take a line")
    check_points(list(points.values()))
    vectors = [point.vector for point in points.values()]
    rows, explained = _components(vectors)
    units = _orthonormal(rows, vectors)
    placed = [_placed(units, vector, vectors[-1]) for vector in vectors]
    coordinates = np.array([coordinates for coordinates, _ in placed])
    largest = coordinates[np.abs(coordinates).argmax(0), [0, 1]]
    signs = np.array([-1.0, 1.0]) * np.sign(largest)
    coordinates = coordinates * signs + 0.0  # no negative zeros
    told = {"kind": "pca", "explained": explained[:2].tolist()}
    axes = tuple(f"component {i}, {share:.1%} of variance (L2)" for i, share in enumerate(explained[:2], start=1))
    directions = along(
        list(points.values())[-1], units * torch.from_numpy(signs)[:, None], space, (axes[0], axes[1]), told,
        np.abs(coordinates).max(0).tolist(),
    )  # fmt: skip
    return Trajectory(
        points, directions, explained, coordinates, np.array([off for _, off in placed]),
        np.array([distance(vector, vectors[0]) for vector in vectors]),
        np.array([distance(vector, vectors[-1]) for vector in vectors]),
        np.array([0.0, *(distance(a, b) for a, b in pairwise(vectors))]), np.array(list(_turns(vectors))),
    )  # fmt: skip


def _components(vectors: Sequence[Tensor]) -> tuple[Array, Array]:
    """Coefficients [2, T] of the first two components in the checkpoints, and the shares of all."""
    inner = gram(list(vectors), origin=vectors[-1], chunk=max(1, (1 << 24) // len(vectors))).numpy()
    count = len(inner)
    centre = np.eye(count) - 1 / count
    values, rows = np.linalg.eigh(centre @ inner @ centre)
    values, rows = np.maximum(values[::-1], 0.0), rows[:, ::-1].T
    if values[1] <= 1e-12 * values[0]:
        raise UsageError(
            "the checkpoints lie on one line (or all are equal): they span no plane; read the line with profile"
        )
    return rows[:2] @ centre, values[:-1] / values.sum()


def _orthonormal(rows: Array, vectors: Sequence[Tensor]) -> Tensor:
    """The combinations [2, D] of the checkpoints as orthonormal vectors; the rows sum to 0."""
    units = torch.zeros(2, len(vectors[0]), dtype=torch.float64)
    for column, vector in zip(rows.T, vectors, strict=True):
        away = vector.double().cpu() - vectors[-1].double().cpu()
        for unit, share in zip(units, column, strict=True):
            unit.add_(away, alpha=float(share))
    units[0] /= units[0].norm()
    # The second may be far shorter than the first, whose rounding errors it then holds: twice is enough.
    for _ in range(2):
        units[1] -= (units[0] @ units[1]) * units[0]
        units[1] /= units[1].norm()
    return units


def _placed(units: Tensor, vector: Tensor, origin: Tensor) -> tuple[Array, float]:
    """Coordinates along orthonormal vectors, and the length of what they leave."""
    away = vector.double().cpu() - origin.double().cpu()
    coordinates = units @ away
    for unit, share in zip(units, coordinates, strict=True):
        away -= share * unit
    return coordinates.numpy(), float(away.norm())


def _turns(vectors: Sequence[Tensor]) -> Iterator[float]:
    """Cosines between successive moves, NaN where there is none."""
    before: Tensor | None = None
    for a, b in pairwise(vectors):
        move = b.double().cpu() - a.double().cpu()
        lengths = None if before is None else float(before.norm() * move.norm())
        yield float(before @ move) / lengths if before is not None and lengths else np.nan
        before = move
    yield np.nan

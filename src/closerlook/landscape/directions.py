"""Two directions from a point of weight space: random ones at the scale of the weights, or the sharpest ones.

Random directions are those of Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets" (arXiv 1712.09913).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from closerlook import figures
from closerlook.batches import BatchFn, Loader
from closerlook.curvature import BatchNorm, sharpness
from closerlook.errors import UsageError
from closerlook.landscape.subspace import Subspace
from closerlook.weights import Point, WeightSpace, loaded

Normalise = Literal["filter", "layer", "none"]
DISTANCES = ("distance along u (L2 of weights)", "distance along v (L2 of weights)")


@dataclass(frozen=True, eq=False)
class Directions:
    """Two directions from a point, and the plane that they span.

    Attributes
    ----------
    origin : the point, w_0.
    vectors : the two directions [2, D], in float64.
    parts : the range of every parameter in them.
    axes : what a coordinate along each counts.
    reach : coordinates of w_0 + d_1 and w_0 + d_2: 1 where multiples are counted, their lengths where distances are.
    told : how they were made.
    """

    origin: Point
    vectors: Tensor
    parts: Mapping[str, slice]
    axes: tuple[str, str]
    reach: tuple[float, float] = (1.0, 1.0)
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def norms(self) -> tuple[float, float]:
        """Lengths (L2) of the two."""
        first, second = (float(vector.norm()) for vector in self.vectors)
        return first, second

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two."""
        return float(self.vectors[0] @ self.vectors[1]) / (self.norms[0] * self.norms[1])

    def plane(self) -> Subspace:
        """The plane through w_0 along both, in the type of w_0: what `closerlook.surface` reads."""
        start = self.origin.vector
        tips = [Point((start.double().cpu() + vector).to(start)) for vector in self.vectors]
        return Subspace("directions", (self.origin, *tips), reach=self.reach)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the vectors."""
        return {
            **self.told, "origin": self.origin.origin, "axes": list(self.axes), "norms": list(self.norms),
            "cosine": self.cosine,
        }  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """One row per parameter: lengths (L2) of its weights and of its part of each direction."""
        columns = zip(("weights", "d_1", "d_2"), (self.origin.vector.double().cpu(), *self.vectors), strict=True)
        norms = {name: [float(vector[span].norm()) for span in self.parts.values()] for name, vector in columns}
        return pd.DataFrame({"parameter": list(self.parts), **norms})

    def plot(self, ax: Axes | None = None) -> Axes:
        """The share of each direction's squared length in every parameter."""
        lengths = self.to_frame()
        shares: dict[str, dict[int | str, Any]] = {
            axis: {0: lengths[name] ** 2 / norm**2}
            for axis, name, norm in zip(self.axes, ("d_1", "d_2"), self.norms, strict=True)
        }
        return figures.layer_profile(list(self.parts), shares, "share of the squared norm", ax)


def random_directions(
    model: nn.Module, w: Any = None, *, normalise: Normalise = "filter", seed: int = 0, params: str = "*"
) -> Directions:
    """Two Gaussian directions, scaled filter by filter to the weights.

    ``d ~ N(0, 1)``. With ``"filter"`` every slice d_f along the first dimension of a tensor of two or more dimensions
    becomes ``d_f |w_f| / (|d_f| + 1e-10)``, with ``"layer"`` every such tensor as a whole; tensors of fewer dimensions,
    biases and norm layers, stay as they are: 0. With ``"none"`` all entries stay Gaussian. Coordinates count multiples
    of the two, which are not made orthogonal: between D random entries the cosine is of the size ``D^-1/2``, and
    `.cosine` says what it is.

    Parameters
    ----------
    w
        Where they start: a point, another model, a state dict or a path; by default the model's own weights.
    seed
        Draws both, in float64 whatever the type of the weights.

    Raises
    ------
    UsageError
        Another word for `normalise`, or nothing is left to move: no tensor has two dimensions, or all are 0.

    Examples
    --------
    >>> layer = nn.Linear(3, 2)
    >>> found = random_directions(layer)
    >>> d = found.vectors[0, :6].reshape(2, 3)
    >>> bool(torch.allclose(d.norm(dim=1), layer.weight.detach().double().norm(dim=1)))
    True

    Source: Li et al. 2018, section 4.
    """
    if normalise not in get_args(Normalise):
        raise UsageError(f"normalise={normalise!r} is none of {', '.join(get_args(Normalise))}")
    space = WeightSpace(model, params)
    origin = space.point(model if w is None else w)
    source = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(space.size, generator=source, dtype=torch.float64) for _ in range(2)]
    for vector in drawn if normalise != "none" else ():
        _normalise(vector, origin.vector, space, normalise)
    if not all(bool(vector.any()) for vector in drawn):
        raise UsageError(
            f"normalise={normalise!r} leaves nothing to move: of {', '.join(space.names[:4])} none has two dimensions "
            "and other weights than 0; take 'none'"
        )
    axes = ("multiples of a random direction", "multiples of another")
    told = {"kind": "random", "normalise": normalise, "seed": seed}
    return Directions(origin, torch.stack(drawn), _parts(space), axes, told=told)


def hessian_directions(
    model: nn.Module,
    loader: Loader,
    w: Any = None,
    *,
    params: str = "*",
    batch_norm: BatchNorm = "batch",
    tolerance: float = 0.01,
    max_products: int = 200,
    seed: int = 0,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> Directions:
    """The two sharpest directions: unit eigenvectors of the two largest Hessian eigenvalues of the mean loss.

    Coordinates are distances (L2 of weights), so that the loss along them is ``L(w) + x g'u + x^2 value / 2`` near w.
    Settings are those of `closerlook.sharpness`, which finds them; `.told` holds eigenvalues and residuals.

    Raises
    ------
    UsageError
        What `closerlook.sharpness` refuses; a space of one parameter.

    Examples
    --------
    >>> from closerlook.batches import Output
    >>> def squares(model, batch):
    ...     return Output((model(batch[0]) - batch[1]).square().sum(1), None)
    >>> data = [(torch.diag(torch.tensor([1.0, 2.0, 3.0])), torch.zeros(3, 1))]
    >>> found = hessian_directions(nn.Linear(3, 1, bias=False), data, batch_fn=squares)
    >>> found.vectors.abs().argmax(1).tolist()
    [2, 1]
    """
    space = WeightSpace(model, params)
    origin = space.point(model if w is None else w)
    found = sharpness(
        model if w is None else loaded(model, _whole(model, space, origin)), loader, top=2, params=params,
        batch_norm=batch_norm, tolerance=tolerance, max_products=max_products, seed=seed, batch_fn=batch_fn,
        device=device, autocast=autocast,
    )  # fmt: skip
    told = {
        "kind": "hessian", "seed": seed, "batch_norm": batch_norm, "n": found.n, "converged": found.converged,
        "values": found.values.tolist(), "residuals": found.residuals.tolist(),
    }  # fmt: skip
    axes = tuple(f"eigenvector {i}, eigenvalue {v:.3g} (L2)" for i, v in enumerate(found.values, start=1))
    return along(origin, found.vectors, space, (axes[0], axes[1]), told)


def along(
    origin: Point, vectors: Tensor, space: WeightSpace, axes: tuple[str, str], told: Mapping[str, Any],
    length: Sequence[float] | None = None,
) -> Directions:  # fmt: skip
    """Directions along orthonormal vectors [2, D], of the length of the weights unless told, counted in distance.

    Longer ones lose less when w_0 + d is rounded to the type of the weights.
    """
    units = torch.linalg.qr(vectors.double().cpu().T)[0].T
    units *= torch.sign((units * vectors.double().cpu()).sum(1, keepdim=True))
    norm = float(origin.vector.double().norm()) or 1.0
    reach = (norm, norm) if length is None else (length[0], length[1])
    return Directions(origin, units * torch.tensor(reach, dtype=torch.float64)[:, None], _parts(space), axes, reach,
                      told)  # fmt: skip


def _whole(model: nn.Module, space: WeightSpace, point: Point) -> dict[str, Tensor]:
    """The state dict of the model with a point's weights in the place of its own."""
    return {**model.state_dict(), **space.state_dict(point)}


def _parts(space: WeightSpace) -> dict[str, slice]:
    return {name: span for name, _, span in space.slices()}


def _normalise(vector: Tensor, weights: Tensor, space: WeightSpace, by: Normalise) -> None:
    """Scale the parts of a direction to those of the weights, in place."""
    for _, shape, span in space.slices():
        if len(shape) < 2:
            vector[span] = 0.0
            continue
        flat = (shape[0], -1) if by == "filter" and shape.numel() else (1, -1)
        d, w = vector[span].view(flat), weights[span].double().cpu().view(flat)
        d *= w.norm(dim=1, keepdim=True) / (d.norm(dim=1, keepdim=True) + 1e-10)

"""Recipes of steps that read: losses on paths and planes, predictions, similarities, probes, curvature, alignment."""

from typing import Literal

from pydantic import Field, model_validator

from closerlook.runs.points import PointRef
from closerlook.runs.specs import BatchStats, DataSpec, Frozen, MemoryFormat, ModelSpec, Precision, Split


class Reading(Frozen):
    """What every step that reads losses shares: splits, batch-norm policy, batch size, precision and layout."""

    data: DataSpec
    model: ModelSpec
    splits: tuple[Split, ...] = ("train", "test")
    batch_stats: BatchStats = "recompute"
    batch_size: int = 500
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "channels_last"


class ProfileRecipe(Reading):
    """Read metrics along a segment or curve through the given control points, all or to a tolerance in nats.

    With `repair` every point of a segment gets its activations' means and spreads from those of the ends (REPAIR); that
    is for networks without batch norm.
    """

    kind: Literal["profile"] = "profile"
    version: Literal[2] = 2
    curve: Literal["line", "polychain", "bezier"] = "line"
    points: tuple[PointRef, ...]
    t: int = 25
    tolerance: float | None = None
    level: float = 0.95
    repair: bool = False

    @model_validator(mode="after")
    def _repairs_a_segment(self) -> "ProfileRecipe":
        if self.repair and (self.curve != "line" or len(self.points) != 2):
            raise ValueError("REPAIR is of the points between two ends: take a line of two points")
        return self


class SurfaceRecipe(Reading):
    """Read metrics on the plane through three points, with others projected on it."""

    kind: Literal["surface"] = "surface"
    version: Literal[2] = 2
    points: tuple[PointRef, PointRef, PointRef]
    marks: dict[str, PointRef] = Field(default={})
    grid: tuple[int, int] = (21, 21)
    margin: float = 0.2
    tolerance: float | None = None


class DirectionsRecipe(Reading):
    """Read metrics on the plane along two directions from a point, with others projected on it.

    `seed` draws the random ones, and the start of the search for the sharpest. `radius` counts multiples of a random
    direction, and distances (L2) along an eigenvector.
    """

    kind: Literal["directions"] = "directions"
    version: Literal[1] = 1
    point: PointRef
    directions: Literal["random", "random-layer", "hessian"] = "random"
    seed: int = 0
    radius: float = 1.0
    marks: dict[str, PointRef] = Field(default={})
    grid: tuple[int, int] = (21, 21)
    tolerance: float | None = None


class TrajectoryRecipe(Reading):
    """Read metrics on the principal plane of a series of points, in the order of their names."""

    kind: Literal["trajectory"] = "trajectory"
    version: Literal[1] = 1
    names: tuple[str, ...]
    points: tuple[PointRef, ...]
    grid: tuple[int, int] = (21, 21)
    margin: float = 0.2
    tolerance: float | None = None

    @model_validator(mode="after")
    def _names_each_point(self) -> "TrajectoryRecipe":
        if len(set(self.names)) != len(self.points) or len(self.names) != len(self.points):
            raise ValueError("a trajectory has one name for each of its points, no two of them alike")
        return self


class BarriersRecipe(Reading):
    """Barriers between all pairs of points."""

    kind: Literal["barriers"] = "barriers"
    version: Literal[2] = 2
    points: dict[str, PointRef]
    t: int = 11


class PredictRecipe(Reading):
    """Logits of points on the whole test set; an average of weights gets statistics of its own."""

    kind: Literal["predict"] = "predict"
    version: Literal[1] = 1
    points: dict[str, PointRef]


class TwoNetworks(Frozen):
    """What every step that reads two networks shares; `model_b` is B's network where it is another one."""

    data: DataSpec
    model: ModelSpec
    model_b: ModelSpec | None = None
    a: PointRef
    b: PointRef
    batch_size: int = 500


class CompareRecipe(TwoNetworks):
    """Similarities of the layers of two networks on one split."""

    kind: Literal["compare"] = "compare"
    version: Literal[1] = 1
    layers_a: tuple[str, ...] = ("*",)
    layers_b: tuple[str, ...] | None = None
    measures: tuple[str, ...] = ("cca", "cka", "procrustes")
    conv: Literal["mean", "positions", "flatten", "spectral"] = "mean"
    tokens: Literal["mean", "positions", "first", "flatten"] = "mean"
    nulls: tuple[Literal["random", "shuffled"], ...] = ()
    intervals: bool = False
    insist: bool = False
    cut: float = 1.0
    split: Split = "train"
    seed: int = 0


class AgreementRecipe(TwoNetworks):
    """Agreement in function of two networks on one split."""

    kind: Literal["agreement"] = "agreement"
    version: Literal[1] = 1
    split: Split = "test"
    temperature: float = 1.0
    level: float = 0.95


class ProbesRecipe(Frozen):
    """Linear probes of the layers of network `a`: to the labels, or to the logits of `b`, a teacher.

    They are fitted on the validation images, which nothing was trained on, and scored on test images. `model_b` is the
    teacher's network where it is another one.
    """

    kind: Literal["probes"] = "probes"
    version: Literal[1] = 1
    data: DataSpec
    model: ModelSpec
    model_b: ModelSpec | None = None
    a: PointRef
    b: PointRef | None = None
    layers: tuple[str, ...] = ("*",)
    conv: Literal["mean", "flatten"] = "mean"
    tokens: Literal["mean", "first", "flatten"] = "mean"
    batch_size: int = 500
    seed: int = 0


class SharpnessRecipe(Frozen):
    """The largest Hessian eigenvalues at a point and the critical learning rate along its gradient, on one split.

    `examples` are the first ones of the split, all of them unless told otherwise. `blocks` names, by patterns of
    parameters, those whose own largest eigenvalue is read too. `seed` is that of the first Lanczos vector.
    """

    kind: Literal["sharpness"] = "sharpness"
    version: Literal[1] = 1
    data: DataSpec
    model: ModelSpec
    point: PointRef
    split: Split = "train"
    examples: int | None = None
    batch_size: int = 500
    top: int = 1
    blocks: dict[str, tuple[str, ...]] = Field(default={})
    batch_norm: Literal["batch", "running"] = "batch"
    tolerance: float = 0.01
    seed: int = 0


class AlignRecipe(Frozen):
    """Permute the hidden units of `b` so that it lies near `a`; `Aligned` refers to the result.

    Activations are read, and the outputs of the permuted network checked, on the images for batch-norm statistics, or
    on those that carry the training loss where there are none. `seed` draws the orders in which groups are matched.
    """

    kind: Literal["align"] = "align"
    version: Literal[1] = 1
    data: DataSpec
    model: ModelSpec
    a: PointRef
    b: PointRef
    method: Literal["weights", "activations"] = "weights"
    restarts: int = Field(default=5, ge=1)
    batch_size: int = 500
    seed: int = 0

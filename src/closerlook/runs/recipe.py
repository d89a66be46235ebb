"""Recipes: what a step does, as frozen data that refuses unknown keys and can be hashed and stored."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from closerlook.durations import Clock, Duration, to_steps
from closerlook.schedules import Constant, LinearDecay, Schedule
from closerlook.training.interventions import AnyIntervention


class Frozen(BaseModel):
    """Immutable, with no key that it does not know and no number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSpec(Frozen):
    """A data set and its parts; `seed` draws the subset.

    `n_read` training images carry the training loss and `n_statistics` others the batch-norm statistics.
    `source` is the content hash of a ``module:function`` of the user's.
    """

    name: str = "fashion"
    resolution: int | None = None
    n_train: int
    n_validation: int
    n_statistics: int
    n_read: int
    n_test: int | None = None
    seed: int
    source: str | None = None


class ModelSpec(Frozen):
    """A network by its registered name, or ``module:function``; classes and input shape come from the data."""

    name: str
    options: dict[str, str | int | float | bool | tuple[int, ...]] = {}
    source: str | None = None


class OptimizerSpec(Frozen):
    """SGD, Adam or AdamW with its settings; the learning rate is the schedule's factor 1."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def settings(self) -> dict[str, Any]:
        """Learning rate, momentum and weight decay; Adam and AdamW have no momentum setting."""
        return {**self.model_dump(exclude={"name"}), **({} if self.name == "sgd" else {"momentum": 0.0})}


class Seeds(Frozen):
    """What each random stream of a training starts from; the subset's seed stands with the data."""

    init: int
    order: int
    augment: int
    noise: int

    @classmethod
    def of(cls, seed: int) -> "Seeds":
        """All streams from one number."""
        return cls(init=seed, order=seed, augment=seed, noise=seed)


class Snapshot(Frozen):
    """The weights of a run at a step."""

    kind: Literal["snapshot"] = "snapshot"
    run: str
    step: int


class Bend(Frozen):
    """A trained point of a curve."""

    kind: Literal["bend"] = "bend"
    run: str
    index: int = 1


class Average(Frozen):
    """The mean of several runs' weights."""

    kind: Literal["average"] = "average"
    of: tuple[Snapshot, ...]


class File(Frozen):
    """A checkpoint made elsewhere, by content."""

    kind: Literal["file"] = "file"
    path: str
    sha256: str


class AtLoss(Frozen):
    """The weights of a run at its first kept epoch whose training loss is as low as that of another run's snapshot."""

    kind: Literal["at_loss"] = "at_loss"
    run: str
    like: Snapshot


Whole = Annotated[Snapshot | File, Field(discriminator="kind")]  # with the buffers that belong to the weights
PointRef = Annotated[Snapshot | Bend | Average | File | AtLoss, Field(discriminator="kind")]
Precision = Literal["fp32", "bf16"]
BatchStats = Literal["recompute", "reference", "interpolate", "keep"]
Split = Literal["train", "test"]
MemoryFormat = Literal["channels_last", "contiguous"]


class Watch(Frozen):
    """What is observed in a training.

    Every `layers_every` steps how far each layer moves; every `sharpness_every` steps before `sharpness_until` the top
    Hessian eigenvalue on the first `examples` images that are set aside for reading. 0: never.
    """

    layers_every: int = 0
    sharpness_every: int = 0
    sharpness_until: Duration = "1dur"
    examples: int = 500
    blocks: dict[str, str | tuple[str, ...]] = {}


class Teacher(Frozen):
    """Soft targets from the network at a point, mixed with the labels as `closerlook.distil` says.

    `soft`: the teacher sees the student's batches (``"live"``), or its answers to the plain training images are fixed
    before the training (``"cached"``) and given to other images of the same class, drawn from `seed` (``"permuted"``),
    or replaced by smoothed labels of the same mean entropy (``"smoothed"``).
    An untrained teacher is the snapshot of its run at step 0.
    """

    model: ModelSpec
    point: Whole
    temperature: float = 4.0
    mixing: float = 0.9
    soft: Literal["live", "cached", "permuted", "smoothed"] = "live"
    seed: int = 0


class TrainRecipe(Frozen):
    """Train a network.

    It begins from its own initial weights; from `start`, a fork (whole state) of another run; or from `weights` alone,
    where the parameters that match `fresh` keep their own initial values.
    """

    kind: Literal["train"] = "train"
    version: Literal[2] = 2
    data: DataSpec
    model: ModelSpec
    optimizer: OptimizerSpec
    schedule: Schedule = Field(default=Constant(), discriminator="kind")
    epochs: int
    batch_size: int
    augment: bool = False
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "channels_last"
    seeds: Seeds
    interventions: tuple[Annotated[AnyIntervention, Field(discriminator="kind")], ...] = ()
    watch: Watch = Watch()
    snapshots: tuple[Duration, ...] = ()
    forks: tuple[Duration, ...] = ()
    start: Snapshot | None = None
    weights: Whole | None = None
    fresh: tuple[str, ...] = ()
    teacher: Teacher | None = None

    @model_validator(mode="after")
    def _one_beginning(self) -> "TrainRecipe":
        if self.start is not None and self.weights is not None:
            raise ValueError("a training begins from a fork (start) or from weights, not from both")
        if self.fresh and self.weights is None:
            raise ValueError("every parameter is fresh without weights; leave 'fresh' out, or name the weights")
        return self

    @property
    def clock(self) -> Clock:
        """Steps of an epoch (a last, smaller batch included) and of the run."""
        steps = -(-self.data.n_train // self.batch_size)
        return Clock(steps, self.epochs * steps)

    def step(self, time: Duration) -> int:
        """Number of the step at a time of this run."""
        return to_steps(time, self.clock)


class ConnectRecipe(Frozen):
    """Train a curve between two points."""

    kind: Literal["connect"] = "connect"
    version: Literal[2] = 2
    data: DataSpec
    model: ModelSpec
    a: PointRef
    b: PointRef
    curve: Literal["polychain", "bezier"] = "polychain"
    bends: int = 1
    optimizer: OptimizerSpec
    schedule: Schedule = Field(default=LinearDecay(begin="0.5dur", end="0.9dur", final=0.01), discriminator="kind")
    epochs: int
    batch_size: int
    augment: bool = False
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "channels_last"
    seed: int

    @property
    def clock(self) -> Clock:
        """Steps of an epoch and of the run."""
        steps = -(-self.data.n_train // self.batch_size)
        return Clock(steps, self.epochs * steps)


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
    """Read metrics along a segment or curve through the given control points, all or to a tolerance in nats."""

    kind: Literal["profile"] = "profile"
    version: Literal[2] = 2
    curve: Literal["line", "polychain", "bezier"] = "line"
    points: tuple[PointRef, ...]
    t: int = 25
    tolerance: float | None = None
    level: float = 0.95


class SurfaceRecipe(Reading):
    """Read metrics on the plane through three points, with others projected on it."""

    kind: Literal["surface"] = "surface"
    version: Literal[2] = 2
    points: tuple[PointRef, PointRef, PointRef]
    marks: dict[str, PointRef] = {}
    grid: tuple[int, int] = (21, 21)
    margin: float = 0.2
    tolerance: float | None = None


class BarriersRecipe(Reading):
    """Barriers between all pairs of points."""

    kind: Literal["barriers"] = "barriers"
    version: Literal[2] = 2
    points: dict[str, PointRef]
    t: int = 11


class BoundaryRecipe(Frozen):
    """The largest learning rate at which a training trains: its failure boundary.

    `train` is repeated, by bisection, at rates of a grid ``low factor^(i + offset)`` up to `high`; it trains when it
    does not diverge and its last validation accuracy reaches `trains`. `offset` in [0, 1) shifts the grid, so that
    boundaries of several seeds do not all fall on the same rates.
    """

    kind: Literal["boundary"] = "boundary"
    version: Literal[1] = 1
    train: TrainRecipe
    low: float
    high: float
    factor: float = 1.25
    offset: float = 0.0
    trains: float = 0.5

    @property
    def data(self) -> DataSpec:
        """That of the training."""
        return self.train.data

    @property
    def model(self) -> ModelSpec:
        """That of the training."""
        return self.train.model

    @property
    def rates(self) -> tuple[float, ...]:
        """The grid of learning rates, from low to high."""
        count = int(math.log(self.high / self.low) / math.log(self.factor) - self.offset + 1e-9) + 1
        return tuple(self.low * self.factor ** (place + self.offset) for place in range(count))


class PredictRecipe(Reading):
    """Logits of points on the whole test set; an average of weights gets statistics of its own."""

    kind: Literal["predict"] = "predict"
    version: Literal[1] = 1
    points: dict[str, PointRef]


class CompareRecipe(Frozen):
    """Similarities of the layers of two networks on one split; `model_b` is B's network where it is another one."""

    kind: Literal["compare"] = "compare"
    version: Literal[1] = 1
    data: DataSpec
    model: ModelSpec
    model_b: ModelSpec | None = None
    a: PointRef
    b: PointRef
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
    batch_size: int = 500
    seed: int = 0


class AgreementRecipe(Frozen):
    """Agreement in function of two networks on one split; `model_b` is B's network where it is another one."""

    kind: Literal["agreement"] = "agreement"
    version: Literal[1] = 1
    data: DataSpec
    model: ModelSpec
    model_b: ModelSpec | None = None
    a: PointRef
    b: PointRef
    split: Split = "test"
    temperature: float = 1.0
    level: float = 0.95
    batch_size: int = 500


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
    blocks: dict[str, tuple[str, ...]] = {}
    batch_norm: Literal["batch", "running"] = "batch"
    tolerance: float = 0.01
    seed: int = 0


Recipe = (
    TrainRecipe | ConnectRecipe | ProfileRecipe | SurfaceRecipe | BarriersRecipe | PredictRecipe | CompareRecipe
    | BoundaryRecipe | AgreementRecipe | ProbesRecipe | SharpnessRecipe
)  # fmt: skip
ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


def inputs_of(recipe: Recipe) -> tuple[str, ...]:
    """The runs whose results a recipe reads, each once."""
    return tuple(dict.fromkeys(_runs(recipe)))


def _runs(value: Any) -> Iterator[str]:
    if isinstance(value, Snapshot | Bend | AtLoss):
        yield value.run
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _runs(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _runs(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _runs(item)

"""Recipes of steps that train: networks, curves, failure boundaries."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from closerlook.durations import Clock, Duration, to_steps
from closerlook.runs.points import PointRef, Snapshot, Whole
from closerlook.runs.specs import DataSpec, Frozen, MemoryFormat, ModelSpec, OptimizerSpec, Precision, Seeds
from closerlook.schedules import Constant, LinearDecay, Schedule
from closerlook.training.interventions import AnyIntervention


class Watch(Frozen):
    """What is observed in a training.

    Every `layers_every` steps how far each layer moves; every `sharpness_every` steps before `sharpness_until` the top
    Hessian eigenvalue on the first `examples` images that are set aside for reading. 0: never.
    """

    layers_every: int = 0
    sharpness_every: int = 0
    sharpness_until: Duration = "1dur"
    examples: int = 500
    blocks: dict[str, str | tuple[str, ...]] = Field(default={})


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
    """Train a curve between two points; its bends are kept at the times of `snapshots` as well."""

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
    snapshots: tuple[Duration, ...] = ()
    seed: int

    @property
    def clock(self) -> Clock:
        """Steps of an epoch and of the run."""
        steps = -(-self.data.n_train // self.batch_size)
        return Clock(steps, self.epochs * steps)

    def step(self, time: Duration) -> int:
        """Number of the step at a time of this run."""
        return to_steps(time, self.clock)


class BoundaryRecipe(Frozen):
    """The largest learning rate at which a training trains: its failure boundary.

    `train` is repeated, by bisection, at rates of a grid ``low factor^(i + offset)`` up to `high`; it trains when it
    does not diverge and its last validation accuracy reaches `trains`. `offset` in [0, 1) shifts the grid, so that
    boundaries of several seeds do not all fall on the same rates.
    """

    kind: Literal["boundary"] = "boundary"
    version: Literal[1] = 1
    train: TrainRecipe
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    factor: float = Field(default=1.25, gt=1)
    offset: float = Field(default=0.0, ge=0, lt=1)
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
        count = math.floor(math.log(self.high / self.low) / math.log(self.factor) - self.offset + 1e-9) + 1
        return tuple(self.low * self.factor ** (place + self.offset) for place in range(count))

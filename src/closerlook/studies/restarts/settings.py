"""The scales of the restarts study: one frozen set of settings each."""

from typing import Literal

from pydantic import Field

from closerlook.durations import Duration
from closerlook.runs.recipe import DataSpec, Frozen, ModelSpec, OptimizerSpec, Precision
from closerlook.schedules import LinearDecay, Schedule, StepDecay


class Settings(Frozen):
    """What one scale fixes.

    `cycle` x `mult`^i are the lengths of the cycles in epochs, after each of which R stays at its final learning rate
    for `rest` epochs; R's rate is set at every step, or only at each epoch's begin when `per_epoch`. `cool` epochs
    bring a branch of the cooled trunk or of step decay to the final rate; `final` is that rate over the largest one.
    R and S go on for `tail` epochs after the last floor: shown, never compared. Representations are compared at
    `layers`, along `directions` of each, with maps averaged over space; `spectral`: within an arm per frequency too.
    """

    data: DataSpec
    model: ModelSpec
    optimizer: OptimizerSpec
    batch_size: int
    augment: bool = False
    precision: Precision = "fp32"
    cycle: int
    mult: int = 2
    cycles: int
    rest: int = 0
    per_epoch: bool = False
    tail: int = 0
    final: float = 2e-5
    cool: int
    self_epochs: int = 2
    drops: tuple[Duration, ...]
    drop: float = 0.2
    curve_epochs: int
    curve: OptimizerSpec
    curve_schedule: Schedule = Field(
        default=LinearDecay(begin="0.5dur", end="0.9dur", final=0.01), discriminator="kind"
    )
    t_segment: int
    t_curve: int
    t_matrix: int
    grid: tuple[int, int]
    forks: Literal["first", "all"]
    planes: Literal["first", "all"] = "first"
    layers: tuple[str, ...] = ("*relu*", "head.fc1")
    directions: int = 7
    spectral: bool = False
    cosine: bool = False
    seeds: tuple[int, ...]
    rule: str
    chosen: str

    @property
    def floors(self) -> tuple[int, ...]:
        """Epochs at which the cycles end, their rest included, from the second on: the last three at most."""
        lengths = [self.cycle * self.mult**i + self.rest for i in range(self.cycles)]
        ends = [sum(lengths[:number]) for number in range(1, self.cycles + 1)]
        return tuple(ends[1:][-3:])

    @property
    def epochs(self) -> int:
        """Length of the runs R, and of S where it has a tail."""
        return self.floors[-1] + self.tail

    def steps(self, epochs: int) -> int:
        """Steps of that many epochs."""
        return epochs * -(-self.data.n_train // self.batch_size)

    def at(self, seed: int) -> "Settings":
        """The same settings with the subset of a seed."""
        return self.model_copy(update={"data": self.data.model_copy(update={"seed": seed})})


_SMOKE = Settings(
    data=DataSpec(name="digits", n_train=400, n_validation=100, n_statistics=100, n_read=200, n_test=100, seed=0),
    model=ModelSpec(name="vgg11_bn", options={"width": 0.0625, "head": "linear", "init": "he"}),
    optimizer=OptimizerSpec(lr=0.2, weight_decay=1e-3),
    batch_size=50, cycle=1, cycles=3, cool=1, drops=("2ep", "5ep"), curve_epochs=1,
    curve=OptimizerSpec(lr=0.05, weight_decay=1e-3), t_segment=5, t_curve=5, t_matrix=3, grid=(5, 5),
    layers=("*relu8", "head.fc1"), directions=3, forks="first", seeds=(0, 1, 2), rule="restarts-small",
    chosen="tiny, to exercise every step; its numbers mean nothing",
)  # fmt: skip

_SMALL = Settings(
    data=DataSpec(
        name="fashion", resolution=16, n_train=5000, n_validation=500, n_statistics=1000, n_read=1000, n_test=1000,
        seed=0,
    ),
    model=ModelSpec(name="vgg11_bn", options={"width": 0.25, "head": "linear", "init": "he"}),
    optimizer=OptimizerSpec(lr=0.5, weight_decay=1e-3),
    batch_size=50, precision="bf16", cycle=5, cycles=4, cool=5, drops=("22ep", "56ep"), curve_epochs=8,
    curve=OptimizerSpec(lr=0.05, weight_decay=1e-3), t_segment=21, t_curve=13, t_matrix=9, grid=(15, 15),
    forks="first", seeds=(100, 101, 102), rule="restarts-small",
    chosen="learning rate, weight decay, batch and cycle were chosen on seeds 0 to 2 because a barrier shows there",
)  # fmt: skip

_STANDARD = _SMALL.model_copy(update={
    "data": DataSpec(
        name="fashion", resolution=32, n_train=10_000, n_validation=2000, n_statistics=2000, n_read=2000, n_test=2000,
        seed=0,
    ),
    "t_segment": 25, "t_curve": 25, "t_matrix": 13, "grid": (21, 21), "forks": "all", "cosine": True,
    "spectral": True,
    "curve_epochs": 10, "seeds": (100, 101, 102, 103, 104), "rule": "restarts",
    "chosen": "taken over from the small scale; not tuned for this size yet, so its verdicts are demonstrations",
})  # fmt: skip

_PAPER = Settings(
    data=DataSpec(name="cifar10", n_train=45_000, n_validation=5000, n_statistics=5000, n_read=10_000, seed=0),
    model=ModelSpec(name="vgg16", options={"head": "paper", "init": "paper"}),
    optimizer=OptimizerSpec(lr=0.05, weight_decay=5e-4),
    batch_size=100, augment=True, cycle=10, cycles=4, tail=50, cool=10, drops=("60ep", "150ep"),
    curve_epochs=100, curve=OptimizerSpec(lr=0.015, weight_decay=5e-4), t_segment=61, t_curve=61, t_matrix=25,
    grid=(21, 21), layers=("*relu*", "head.fc3"), forks="all", planes="all", cosine=True,
    seeds=(100, 101, 102, 103, 104), rule="restarts",
    chosen="as in the paper (section 3), but validation is held out of the training images, not the test set",
)  # fmt: skip

# Their loop sets the rate once per epoch and counts both ends of each cosine, so a cycle has one epoch more: peaks at
# 0, 11, 32, 73 and 154. Their curves move by the gradient alone, without momentum or weight decay.
_AUTHOR_CODE = _PAPER.model_copy(update={
    "rest": 1, "per_epoch": True, "tail": 46, "drops": ("60ep", "120ep", "150ep"), "drop": 0.1, "curve_epochs": 101,
    "curve": OptimizerSpec(lr=0.1, momentum=0.0, weight_decay=0.0),
    "curve_schedule": StepDecay(at=("45ep", "80ep"), gamma=0.1),
    "chosen": "as in the authors' public code, but validation is held out of the training images, not the test set",
})  # fmt: skip

SCALES = {"smoke": _SMOKE, "small": _SMALL, "standard": _STANDARD, "paper": _PAPER, "author-code": _AUTHOR_CODE}

"""The scales of the restarts study: one frozen set of settings each."""

from typing import Literal

from closerlook.durations import Duration
from closerlook.runs.recipe import DataSpec, Frozen, ModelSpec, OptimizerSpec, Precision


class Settings(Frozen):
    """What one scale fixes.

    `cycle` x `mult`^i are the lengths of the cycles in epochs; `cool` epochs bring a branch of the cooled
    trunk or of step decay to the final learning rate; `final` is that rate over the largest one.
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
    final: float = 2e-5
    cool: int
    self_epochs: int = 2
    drops: tuple[Duration, ...]
    drop: float = 0.2
    curve_epochs: int
    curve_lr: float
    t_segment: int
    t_curve: int
    t_matrix: int
    grid: tuple[int, int]
    forks: Literal["first", "all"]
    planes: Literal["first", "all"] = "first"
    cosine: bool = False
    seeds: tuple[int, ...]
    rule: str
    chosen: str

    @property
    def floors(self) -> tuple[int, ...]:
        """Epochs at which the cycles end, from the second on: the last three at most."""
        ends = [sum(self.cycle * self.mult**i for i in range(number)) for number in range(1, self.cycles + 1)]
        return tuple(ends[1:][-3:])

    @property
    def epochs(self) -> int:
        """Length of a run."""
        return self.floors[-1]

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
    batch_size=50, cycle=1, cycles=3, cool=1, drops=("2ep", "5ep"), curve_epochs=1, curve_lr=0.05,
    t_segment=5, t_curve=5, t_matrix=3, grid=(5, 5), forks="first", seeds=(0, 1, 2), rule="restarts-small",
    chosen="tiny, to exercise every step; its numbers mean nothing",
)  # fmt: skip

_SMALL = Settings(
    data=DataSpec(
        name="fashion", resolution=16, n_train=5000, n_validation=500, n_statistics=1000, n_read=1000, n_test=1000,
        seed=0,
    ),
    model=ModelSpec(name="vgg11_bn", options={"width": 0.25, "head": "linear", "init": "he"}),
    optimizer=OptimizerSpec(lr=0.5, weight_decay=1e-3),
    batch_size=50, precision="bf16", cycle=5, cycles=4, cool=5, drops=("22ep", "56ep"), curve_epochs=8, curve_lr=0.05,
    t_segment=21, t_curve=13, t_matrix=9, grid=(15, 15), forks="first", seeds=(100, 101, 102), rule="restarts-small",
    chosen="learning rate, weight decay, batch and cycle were chosen on seeds 0 to 2 because a barrier shows there",
)  # fmt: skip

_STANDARD = _SMALL.model_copy(update={
    "data": DataSpec(
        name="fashion", resolution=32, n_train=10_000, n_validation=2000, n_statistics=2000, n_read=2000, n_test=2000,
        seed=0,
    ),
    "t_segment": 25, "t_curve": 25, "t_matrix": 13, "grid": (21, 21), "forks": "all", "cosine": True,
    "curve_epochs": 10, "seeds": (100, 101, 102, 103, 104), "rule": "restarts",
    "chosen": "taken over from the small scale; not tuned for this size yet, so its verdicts are demonstrations",
})  # fmt: skip

_PAPER = Settings(
    data=DataSpec(name="cifar10", n_train=45_000, n_validation=5000, n_statistics=5000, n_read=10_000, seed=0),
    model=ModelSpec(name="vgg16", options={"head": "paper", "init": "paper"}),
    optimizer=OptimizerSpec(lr=0.05, weight_decay=5e-4),
    batch_size=100, augment=True, cycle=10, cycles=4, cool=10, drops=("60ep", "150ep"),
    curve_epochs=100, curve_lr=0.015, t_segment=61, t_curve=61, t_matrix=25, grid=(21, 21), forks="all", planes="all",
    cosine=True,
    seeds=(100, 101, 102, 103, 104), rule="restarts",
    chosen="network, data, batch, learning rate and cycles as in the paper (section 3)",
)  # fmt: skip

SCALES = {"smoke": _SMOKE, "small": _SMALL, "standard": _STANDARD, "paper": _PAPER}

"""The scales of the warmup study: one frozen set of settings each."""

from pydantic import Field

from closerlook.durations import Duration, to_steps
from closerlook.runs.recipe import DataSpec, Frozen, ModelSpec, OptimizerSpec, Precision, TrainRecipe
from closerlook.runs.recipe import Seeds as SeedsOf
from closerlook.schedules import Cosine, Schedule, StepDecay

Patterns = tuple[str, ...]
# Convolutions by number with their norms, where they have some: features.conv1, features.norm1.
CONVOLUTIONS = {
    f"conv{first}-{last}": tuple(f"features.*[a-z]{number}.*" for number in (first, last))
    for first, last in ((1, 2), (3, 4), (5, 6), (7, 8))
}
VGG = {**CONVOLUTIONS, "head": ("head.*",)}
STAGES = {
    "stem, stage 1": ("features.conv.*", "features.norm.*", "features.stage1.*"), "stage 2": ("features.stage2.*",),
    "stage 3, head": ("features.stage3.*", "head.*"),
}  # fmt: skip


class Network(Frozen):
    """A network and its blocks of parameters, shallow to deep; the deep block is the last one."""

    model: ModelSpec
    blocks: dict[str, Patterns]

    @property
    def deep(self) -> str:
        """Name of the deep block."""
        return list(self.blocks)[-1]


class Boundaries(Frozen):
    """Where failure boundaries are looked for, and in which other networks as well, on how many seeds."""

    low: float
    high: float
    factor: float = 1.25
    others: dict[str, Network] = Field(default={})
    other_seeds: int = 0


class Phase(Frozen):
    """A map of accuracy over learning rate (as multiples of the study's) and length of warmup, on how many seeds."""

    factors: tuple[float, ...] = ()
    lengths: tuple[Duration, ...] = ()
    seeds: int = 0


class Trace(Frozen):
    """When sharpness is read in an arm: every so many steps until a time."""

    every: int
    until: Duration


class Settings(Frozen):
    """What one scale fixes.

    `ramp` is the length of the warmup, from a rate of 0; `after` the schedule that it is multiplied onto. Blocks other
    than the deep one are warmed up and frozen alone on the first `mapped` seeds; sharpness is traced on the first
    `traced` ones, more often in N, which fails early. Representations are compared with those of the start at step
    `early` (the end of an epoch, which has a training loss), where that has the same summed rate, where the loss is
    equal, and at the end of the ramp, at `layers` along `directions`.
    """

    data: DataSpec
    network: Network
    optimizer: OptimizerSpec
    batch_size: int
    epochs: int
    augment: bool = False
    precision: Precision = "fp32"
    ramp: Duration
    after: Schedule = Field(default=Cosine(), discriminator="kind")
    small_batch: int
    small_rate: float
    clip: float | None = None
    slow_head: float | None = None
    freezes: tuple[Duration, ...] = ()
    mapped: int = 0
    traced: int = 0
    traces: dict[str, Trace] = Field(default={"N": Trace(every=2, until="40it"), "W": Trace(every=10, until="150it")})
    trace_examples: int = 500
    early: int
    kept: tuple[Duration, ...] = ()
    layers: tuple[str, ...] = ("*relu*", "head.fc3")
    directions: int = 3
    phase: Phase = Phase()
    boundaries: Boundaries | None = None
    seeds: tuple[int, ...]
    rule: str
    chosen: str

    def at(self, seed: int) -> "Settings":
        """The same settings with the subset of a seed."""
        return self.model_copy(update={"data": self.data.model_copy(update={"seed": seed})})

    def plain(self, seed: int) -> TrainRecipe:
        """Training without warmup: what every arm changes."""
        return TrainRecipe(
            data=self.data, model=self.network.model, optimizer=self.optimizer, schedule=self.after,
            epochs=self.epochs, batch_size=self.batch_size, augment=self.augment, precision=self.precision,
            seeds=SeedsOf.of(seed),
        )  # fmt: skip

    @property
    def ramp_steps(self) -> int:
        """Steps of the warmup."""
        return to_steps(self.ramp, self.plain(0).clock)


# The rate of `small` is the lowest of a grid in factors of 1.5 at which training without warmup fails in all of the
# tuning seeds and with warmup in none; it fails where it diverges or ends below a validation accuracy of 50 %.
RATES = (2 / 3, 1.0, 1.5, 2.25, 3.375, 5.0625)
TUNING_SEEDS = (0, 1, 2, 3, 4)
FAILS_BELOW = 0.5

_SMOKE = Settings(
    data=DataSpec(name="digits", n_train=100, n_validation=100, n_statistics=50, n_read=50, n_test=100, seed=0),
    network=Network(
        model=ModelSpec(name="vgg11_bn", options={"width": 0.0625, "head": "paper", "init": "he", "dropout": 0.0}),
        blocks={"convolutions": ("features.*",), "head": ("head.*",)},
    ),
    optimizer=OptimizerSpec(lr=0.3), batch_size=50, epochs=4, ramp="4it", small_batch=25, small_rate=0.05,
    clip=1.0, slow_head=0.1, freezes=("6it",), mapped=1, traced=1,
    traces={"N": Trace(every=2, until="4it"), "W": Trace(every=4, until="8it")}, trace_examples=50, early=2,
    layers=("*relu8", "head.fc3"), directions=3, phase=Phase(factors=(0.5, 1.0), lengths=(0, "4it"), seeds=1),
    boundaries=Boundaries(low=0.1, high=0.4, factor=2.0), seeds=(0, 1), rule="warmup",
    chosen="tiny, to exercise every step; its numbers mean nothing",
)  # fmt: skip

_SMALL = Settings(
    data=DataSpec(
        name="fashion", resolution=16, n_train=5000, n_validation=500, n_statistics=500, n_read=1000, n_test=1000,
        seed=0,
    ),
    network=Network(
        model=ModelSpec(name="vgg11_bn", options={"width": 0.25, "head": "paper", "init": "he", "dropout": 0.0}),
        blocks=VGG,
    ),
    optimizer=OptimizerSpec(lr=1.5), batch_size=500, epochs=25, precision="bf16", ramp="100it", small_batch=100,
    small_rate=0.1, mapped=1, traced=1, early=10, kept=("2ep", "4ep", "6ep", "15ep"),
    phase=Phase(factors=(1 / 2.25, 1.0, 2.25), lengths=(0, "50it", "100it"), seeds=1),
    seeds=(100, 101, 102, 103, 104), rule="warmup-small",
    chosen="chosen on seeds 0 to 4: the lowest rate at which training fails without warmup and not with it",
)  # fmt: skip

_OTHERS = {
    "no norm": Network(
        model=ModelSpec(name="vgg11", options={"width": 0.25, "head": "paper", "init": "he", "dropout": 0.0}),
        blocks=VGG,
    ),
    "norm everywhere": Network(
        model=ModelSpec(
            name="vgg11_bn",
            options={"width": 0.25, "head": "paper", "init": "he", "dropout": 0.0, "head_norm": True},
        ),
        blocks=VGG,
    ),
    "norm everywhere but in the first block": Network(
        model=ModelSpec(
            name="vgg11_bn",
            options={
                "width": 0.25, "head": "paper", "init": "he", "dropout": 0.0, "head_norm": True, "bare_blocks": 1,
            },
        ),
        blocks=VGG,
    ),
    "ResNet-20": Network(model=ModelSpec(name="resnet20"), blocks=STAGES),
}  # fmt: skip

_STANDARD = _SMALL.model_copy(update={
    "data": DataSpec(
        name="fashion", resolution=32, n_train=10_000, n_validation=2000, n_statistics=2000, n_read=2000, n_test=2000,
        seed=0,
    ),
    "clip": 1.0, "slow_head": 0.1, "freezes": ("150it", "200it", "300it"), "mapped": 2, "traced": 2, "early": 20,
    "phase": Phase(factors=(1 / 2.25, 2 / 3, 1.0, 1.5, 2.25), lengths=(0, "50it", "100it", "200it"), seeds=1),
    "boundaries": Boundaries(low=0.05, high=10.0, others=_OTHERS, other_seeds=2), "rule": "warmup",
    "chosen": "taken over from the small scale; not tuned for this size yet",
})  # fmt: skip

_PAPER = Settings(
    data=DataSpec(name="cifar10", n_train=45_000, n_validation=5000, n_statistics=5000, n_read=10_000, seed=0),
    network=Network(model=ModelSpec(name="vgg11", options={"head": "paper", "init": "paper"}), blocks=VGG),
    optimizer=OptimizerSpec(lr=2.5), batch_size=5000, epochs=200, augment=True, ramp="200it",
    after=StepDecay(at=("60ep", "120ep", "150ep"), gamma=0.1), small_batch=100, small_rate=0.05, mapped=5, traced=5,
    early=9, kept=("2ep", "5ep", "10ep", "20ep"), seeds=(100, 101, 102, 103, 104), rule="warmup-small",
    chosen="as in the paper (section 4), but validation is held out of the training images, not the test set",
)  # fmt: skip

# Their code trains on all 50,000 images, so that the ramp of 200 steps is 20 epochs, and looks at the test set alone.
_AUTHOR_CODE = _PAPER.model_copy(update={
    "data": DataSpec(name="cifar10", n_train=50_000, n_validation=0, n_statistics=5000, n_read=10_000, seed=0),
    "early": 10,
    "chosen": "as in the authors' public code: all training images, no validation images",
})  # fmt: skip

SCALES = {"smoke": _SMOKE, "small": _SMALL, "standard": _STANDARD, "paper": _PAPER, "author-code": _AUTHOR_CODE}

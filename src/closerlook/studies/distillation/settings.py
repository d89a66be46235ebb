"""The scales of the distillation study: one frozen set of settings each."""

from pydantic import Field

from closerlook.runs.recipe import DataSpec, Frozen, ModelSpec, OptimizerSpec, Precision
from closerlook.schedules import Cosine, Schedule, StepDecay

Patterns = tuple[str, ...]


def convolutions(first: int, last: int) -> Patterns:
    """Patterns of the parameters of VGG's convolutions from one number to another, with their norms."""
    return tuple(f"features.{layer}{number}.*" for number in range(first, last + 1) for layer in ("conv", "norm"))


class Parts(Frozen):
    """The student's parameters by compared layer, shallow to deep; `last` is the final linear layer."""

    layers: tuple[Patterns, ...]
    last: Patterns = ("head.fc3.*",)

    @property
    def half(self) -> int:
        """How many layers the shallower half has."""
        return len(self.layers) // 2

    def before(self, split: int) -> Patterns:
        """Patterns of the layers before a split."""
        return tuple(pattern for layer in self.layers[:split] for pattern in layer)

    def after(self, split: int) -> Patterns:
        """Patterns of the layers after a split, the final one not among them."""
        return tuple(pattern for layer in self.layers[split:] for pattern in layer)


class Settings(Frozen):
    """What one scale fixes.

    `taught` are the teacher's data, `data` the students', both with the subset of the seed. `splits` are further places
    at which the transplants TL and TE are cut than half way; `softer` further temperatures and mixings of D, as pairs;
    with `controls` there are smoothed labels (LS), an untrained teacher (U), self-distillation (SD) and halves of D
    (DH, HD), with `probed` linear probes of H, D and SP.
    Layers are compared pairwise where they stand at the same relative depth: `layers` of the student with
    `teacher_layers` of the teacher.
    """

    data: DataSpec
    taught: DataSpec
    teacher: ModelSpec
    student: ModelSpec
    parts: Parts
    teacher_epochs: int
    epochs: int
    teacher_batch: int = 100
    batch_size: int = 100
    augment: bool = False
    teacher_augment: bool = False
    precision: Precision = "fp32"
    optimizer: OptimizerSpec
    schedule: Schedule = Field(default=Cosine(), discriminator="kind")
    temperature: float = 4.0
    mixing: float = 0.9
    layers: tuple[str, ...] = ("*relu*",)
    teacher_layers: tuple[str, ...] | None = None
    directions: int = 4
    controls: bool = False
    probed: bool = False
    splits: tuple[int, ...] = ()
    softer: tuple[tuple[float, float], ...] = ()
    seeds: tuple[int, ...]
    rule: str
    chosen: str

    def at(self, seed: int) -> "Settings":
        """The same settings with the subsets of a seed."""
        own = {name: getattr(self, name).model_copy(update={"seed": seed}) for name in ("data", "taught")}
        return self.model_copy(update=own)


VGG = Parts(layers=(*(convolutions(number, number) for number in range(1, 9)), ("head.fc1.*",), ("head.fc2.*",)))
_HEAD = {"head": "paper", "init": "he", "dropout": 0.0}

_SMOKE = Settings(
    data=DataSpec(name="digits", n_train=200, n_validation=100, n_statistics=100, n_read=100, n_test=100, seed=0),
    taught=DataSpec(name="digits", n_train=400, n_validation=100, n_statistics=100, n_read=100, n_test=100, seed=0),
    teacher=ModelSpec(name="vgg11_bn", options={"width": 0.0625, **_HEAD}),
    student=ModelSpec(name="vgg11_bn", options={"width": 0.0625, **_HEAD}),
    parts=VGG, teacher_epochs=2, epochs=1, batch_size=50, teacher_batch=50, optimizer=OptimizerSpec(lr=0.05),
    layers=("*relu2",), directions=2, controls=True, probed=True, splits=(3,),
    softer=((1.0, 0.5),), seeds=(0, 1), rule="distillation",
    chosen="tiny, to exercise every step; its numbers mean nothing",
)  # fmt: skip

_SMALL = Settings(
    data=DataSpec(
        name="fashion", resolution=16, n_train=5000, n_validation=500, n_statistics=500, n_read=1000, n_test=1000,
        seed=0,
    ),
    taught=DataSpec(
        name="fashion", resolution=16, n_train=20_000, n_validation=500, n_statistics=500, n_read=1000, n_test=1000,
        seed=0,
    ),
    teacher=ModelSpec(name="vgg11_bn", options={"width": 0.25, **_HEAD}),
    student=ModelSpec(name="vgg11_bn", options={"width": 0.125, **_HEAD}),
    parts=VGG, teacher_epochs=10, epochs=20, precision="bf16", optimizer=OptimizerSpec(lr=0.1),
    seeds=(100, 101, 102), rule="distillation-small",
    chosen="chosen because a teacher of four times as many images has something to teach there",
)  # fmt: skip

_STANDARD = _SMALL.model_copy(update={
    "data": DataSpec(
        name="fashion", resolution=32, n_train=10_000, n_validation=2000, n_statistics=2000, n_read=2000, n_test=2000,
        seed=0,
    ),
    "taught": DataSpec(
        name="fashion", resolution=32, n_train=40_000, n_validation=2000, n_statistics=2000, n_read=2000, n_test=2000,
        seed=0,
    ),
    "controls": True, "probed": True, "splits": (1, 2, 3, 4, 6, 7, 8, 9),
    "softer": ((1.0, 0.9), (2.0, 0.9), (8.0, 0.9), (4.0, 0.5), (4.0, 1.0)),
    "seeds": (100, 101, 102, 103, 104), "rule": "distillation",
    "chosen": "taken over from the small scale; not tuned for this size yet",
})  # fmt: skip

_SHALLOW = Parts(layers=(("features.conv1.*",), ("features.conv2.*",), ("head.fc1.*",), ("head.fc2.*",)))
_PAPER = Settings(
    data=DataSpec(name="cifar10", n_train=45_000, n_validation=5000, n_statistics=5000, n_read=10_000, seed=0),
    taught=DataSpec(name="cifar10", n_train=45_000, n_validation=5000, n_statistics=5000, n_read=10_000, seed=0),
    teacher=ModelSpec(name="vgg16", options={"head": "paper", "init": "paper"}),
    student=ModelSpec(name="shallow_cnn"), parts=_SHALLOW,
    teacher_epochs=200, epochs=200, augment=True, teacher_augment=True, optimizer=OptimizerSpec(lr=0.05),
    schedule=StepDecay(at=("60ep", "150ep"), gamma=0.2), temperature=5.0,
    teacher_layers=("*relu4", "*relu10", "head.relu1", "head.relu2"), seeds=(100, 101, 102, 103, 104),
    rule="distillation-small",
    chosen="as in the paper (section 5), but validation is held out of the training images, not the test set",
)  # fmt: skip

SCALES = {"smoke": _SMOKE, "small": _SMALL, "standard": _STANDARD, "paper": _PAPER, "author-code": _PAPER}

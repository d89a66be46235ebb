"""What recipes are made of: data, network, optimizer, seeds, as frozen data that refuses unknown keys."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


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


Precision = Literal["fp32", "bf16"]

BatchStats = Literal["recompute", "reference", "interpolate", "keep"]

Split = Literal["train", "test"]

MemoryFormat = Literal["channels_last", "contiguous"]

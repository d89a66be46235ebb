"""Settings of readings and of curves, as groups of options."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import arg

from closerlook.cli.options import Positive, Real, Whole
from closerlook.runs.recipe import BatchStats, MemoryFormat, Precision, Split

Splits = Annotated[tuple[Split, ...], arg(metavar="{train,test} ...")]


@dataclass(frozen=True)
class Curve:
    """Training of the curve: its bends minimise the training loss along it (Garipov et al. 2018, arXiv 1802.10026).

    Attributes
    ----------
    kind
        A chain of straight pieces, or a Bezier curve.
    bends
        Number of points that are trained.
    epochs
        Passes over the training images; 0 trains no curve and reads the straight segment only.
    lr
        Learning rate of SGD with momentum 0.9: constant up to half of the training, then down to a hundredth.
    weight_decay
        Best that with which A and B were trained.
    batch_size
        Images per step.
    precision
        Of the training; what is reported is read in fp32.
    """

    kind: Literal["polychain", "bezier"] = "polychain"
    bends: Positive = 1
    epochs: Whole = 10
    lr: Real = 0.02
    weight_decay: Real = 5e-4
    batch_size: Positive = 100
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Reading:
    """How losses are read: at every point on the same images.

    Attributes
    ----------
    splits
        A part of the training images, the whole test part, or both.
    batch_stats
        What batch norm uses at each point: statistics of images kept for that, pooled (recompute) or as the
        reference tools average them (reference); those of the ends, mixed (interpolate); those of the network (keep).
    read_size
        Images per batch of a reading; it is part of the definition of recomputed statistics.
    read_precision
        Of the readings: with bf16 the ends and the highest point are read in fp32 too, and the difference is told.
    memory_format
        In which convolutions compute; a network that cannot bear channels_last is read in its own.
    """

    splits: Splits = ("train", "test")
    batch_stats: BatchStats = "recompute"
    read_size: Positive = 500
    read_precision: Precision = "fp32"
    memory_format: MemoryFormat = "channels_last"

    def of(self, specs: Mapping[str, Any]) -> dict[str, Any]:
        """What every recipe that reads holds: network, data and these settings."""
        return {
            **specs, "splits": self.splits, "batch_stats": self.batch_stats, "batch_size": self.read_size,
            "precision": self.read_precision, "memory_format": self.memory_format,
        }  # fmt: skip

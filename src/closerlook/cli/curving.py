"""Settings of a reading of curvature, as groups of options."""

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from typing import Annotated, Any, Literal

from torch import nn
from tyro.conf import arg

from closerlook.cli.options import Above, Positive, Real
from closerlook.curvature import BatchNorm, stability_threshold
from closerlook.errors import UsageError
from closerlook.evaluation import batch_norms
from closerlook.runs.recipe import Split
from closerlook.weights.blocks import blocks_of


@dataclass(frozen=True)
class Curving:
    """What is read, and how.

    Attributes
    ----------
    split
        Images whose mean loss it is: those that carry the training loss (--n-read), or the test part.
    examples
        Only the first of them.
    batch_size
        Images per batch; where every batch is normalised by itself, take that of the training.
    top
        How many eigenvalues, the largest first.
    blocks
        Also the largest eigenvalue of every layer, the others held.
    block
        The same for blocks of your own: a name and a pattern of parameter names, such as "deep=layer4.*". A name that
        is given twice has both patterns.
    batch_norm
        Every batch normalised by its own statistics, as training sees it, or by the running ones, as constants.
    tolerance
        Of an eigenvalue, relative.
    """

    split: Split = "train"
    examples: Annotated[Positive | None, arg(help_behavior_hint="(default: all of them)")] = None
    batch_size: Positive = 500
    top: Positive = 1
    blocks: Annotated[Literal["layers"] | None, arg(metavar="layers", help_behavior_hint="")] = None
    block: Annotated[tuple[str, ...], arg(metavar="NAME=PATTERN ...", help_behavior_hint="")] = ()
    batch_norm: BatchNorm = "batch"
    tolerance: Annotated[Above, arg(metavar="SHARE")] = 0.01

    def of(self, model: nn.Module) -> dict[str, Any]:
        """These settings as a recipe names them.

        Raises
        ------
        UsageError
            The network has no such block, fewer parameters than `top`, or no statistics to normalise by.
        """
        if self.batch_norm == "running" and not batch_norms(model):
            raise UsageError("the network keeps no batch-norm statistics to use: leave --batch-norm running out")
        names = [name for name, value in model.named_parameters() if value.requires_grad]
        size = sum(value.numel() for value in model.parameters() if value.requires_grad)
        if self.top > size:
            raise UsageError(f"--top {self.top} asks for more eigenvalues than there are trained parameters, {size:,}")
        settings = {name: value for name, value in vars(self).items() if name != "block"}
        return {**settings, "blocks": self._blocks(names)}

    def _blocks(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        if self.blocks and self.block:
            raise UsageError("--blocks layers and --block name other blocks: give one of the two")
        if self.blocks:
            layers = blocks_of(names, True)
            return {layer: tuple(map(escape, owned)) for layer, owned in layers.items()}
        found: dict[str, tuple[str, ...]] = {}
        for word in self.block:
            name, _, pattern = word.partition("=")
            if not name or not pattern:
                raise UsageError(f"cannot read --block {word!r}; write NAME=PATTERN, such as deep=layer4.*")
            found[name] = (*found.get(name, ()), pattern)
        if found:
            blocks_of(names, found)
        return found


@dataclass(frozen=True)
class Steps:
    """The steps of SGD that the curvature has to bear.

    Attributes
    ----------
    lr
        Learning rate: is the sharpness above what it can bear?
    momentum
        Momentum, as in PyTorch.
    """

    lr: Annotated[Above | None, arg(help_behavior_hint="")] = None
    momentum: Annotated[Real | None, arg(help_behavior_hint="(default: 0.0)")] = None

    def threshold(self) -> dict[str, float]:
        """The learning rate, the momentum, and the eigenvalue above which they diverge; nothing without a rate."""
        if self.lr is None:
            if self.momentum is not None:
                raise UsageError("--momentum says nothing without --lr: give both")
            return {}
        momentum = self.momentum or 0.0
        if not momentum < 1:
            raise UsageError(f"--momentum {momentum:g} never forgets a step; it must be below 1")
        bound = stability_threshold("sgd", self.lr, momentum=momentum)
        return {"lr": self.lr, "momentum": momentum, "threshold": bound}

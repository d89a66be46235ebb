"""What the checkpoints are of: a network and data, from the words on the command line to parts of recipes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from closerlook.cli.options import Positive, Runs, Whole
from closerlook.cli.pairs import read_pairs
from closerlook.cli.points import with_source
from closerlook.errors import UsageError
from closerlook.runs.recipe import DataSpec, ModelSpec
from closerlook.runs.store import RunFolder
from closerlook.steps.setting import parts, source

MOST = 2000  # images that carry a loss, and others that carry the statistics, unless told otherwise
_named = partial(
    arg, metavar="NAME|MODULE:FUNCTION", help_behavior_hint="(default: as in the run that made the checkpoint)"
)


@dataclass(frozen=True)
class Subject:
    """The network whose weights the checkpoints hold, and the data on which it is read.

    Attributes
    ----------
    model
        A built-in network (closerlook ls models), or your function that returns an nn.Module.
    data
        A built-in data set (closerlook ls data), or your function that returns (train, validation, test): each a
        pair (inputs, targets) or a Dataset.
    model_options
        Settings of the network, such as width=0.25 head=linear.
    resolution
        Side of a built-in data set's images.
    n_train
        Training images in use.
    n_read
        Training images that carry the training loss.
    n_statistics
        Other training images, which carry the batch-norm statistics.
    seed
        Draws the subset of the training images, and the order in which a curve is trained.
    runs
        Folder that holds the runs.
    """

    model: Annotated[str | None, _named()] = None
    data: Annotated[str | None, _named()] = None
    model_options: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="")] = ()
    resolution: Annotated[Positive | None, arg(help_behavior_hint="")] = None
    n_train: Annotated[Positive | None, arg(help_behavior_hint="(default: all)")] = None
    n_read: Annotated[Positive | None, arg(help_behavior_hint=f"(default: at most {MOST:,})")] = None
    n_statistics: Annotated[Positive | None, arg(help_behavior_hint=f"(default: a quarter, at most {MOST:,})")] = None
    seed: Whole = 0
    runs: Runs = Path("runs")

    def specs(self, checkpoints: Sequence[Path]) -> dict[str, Any]:
        """`model` and `data` of a recipe; what was not named comes from the run that made the first checkpoint."""
        data = self._data(checkpoints[0])
        model = with_source(self._model(checkpoints[0]))
        parts(data)
        return {"model": model, "data": data}

    def _model(self, checkpoint: Path) -> ModelSpec:
        if self.model is None:
            found: ModelSpec = _maker(checkpoint, "model")
            return found
        return ModelSpec(name=self.model, options=read_pairs(self.model_options))

    def _data(self, checkpoint: Path) -> DataSpec:
        told = {name: getattr(self, name) for name in ("n_train", "n_read", "n_statistics")}
        told = {name: number for name, number in told.items() if number is not None}
        if self.data is None:
            found: DataSpec = _maker(checkpoint, "data")
            return with_source(found.model_copy(update=told))
        n = told.get("n_train") or len(source(self.data, self.resolution).train_targets)
        n_statistics = told.get("n_statistics", min(MOST, max(1, n // 4)))
        sizes = {"n_train": n, "n_statistics": n_statistics, "n_read": min(MOST, n - n_statistics), **told}
        spec = DataSpec(name=self.data, resolution=self.resolution, n_validation=0, seed=self.seed, **sizes)
        return with_source(spec)


def _maker(checkpoint: Path, part: str) -> Any:
    folder = RunFolder(checkpoint.resolve().parent.parent)
    if not (folder.path / "recipe.json").exists():
        raise UsageError(
            f"which {part} goes with {checkpoint}? Give --{part} with a built-in name (closerlook ls) or "
            f"--{part} package.module:function"
        )
    return getattr(folder.recipe(), part)

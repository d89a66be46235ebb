"""From a recipe's data and model to tensors and networks, and from references to points."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from closerlook import data, files, models
from closerlook.data import CropFlip, Source, TensorBatches
from closerlook.errors import PointMissingError, UsageError
from closerlook.evaluation import batch_norms
from closerlook.runs.recipe import AtLoss, Average, Bend, DataSpec, File, ModelSpec, PointRef, Reading, Snapshot, Split
from closerlook.runs.store import RunFolder
from closerlook.weights import Point, WeightSpace

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@lru_cache(maxsize=2)
def source(name: str, resolution: int | None) -> Source:
    """The data set, read once per process."""
    return data.load(name, resolution=resolution)


@lru_cache(maxsize=4)
def parts(spec: DataSpec) -> data.Parts:
    """The parts that a recipe names."""
    return data.split(
        source(spec.name, spec.resolution), n_train=spec.n_train, n_validation=spec.n_validation,
        n_statistics=spec.n_statistics, n_read=spec.n_read, seed=spec.seed,
    )  # fmt: skip


def network(spec: ModelSpec, data_spec: DataSpec, seed: int) -> nn.Module:
    """The network with its input shape and classes taken from the data."""
    loaded = source(data_spec.name, data_spec.resolution)
    return build_for(spec, loaded.input_shape(), loaded.classes, seed)


def build_for(spec: ModelSpec, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """The network for inputs of a shape; what the options already say wins."""
    known = {
        "classes": classes,
        "in_channels": shape[0],
        "image_size": shape[-1],
        "in_features": int(torch.Size(shape).numel()),
    }
    takes = (
        [] if models.is_target(spec.name) else models.MODELS[spec.name].options() if spec.name in models.MODELS else []
    )
    return models.build(spec.name, seed=seed, **{**{k: v for k, v in known.items() if k in takes}, **spec.options})


def training_batches(
    spec: DataSpec, batch_size: int, augment: bool, order_seed: int, augment_seed: int, extra: Tensor | None = None
) -> TensorBatches:
    """Shuffled batches of the training images, with crop and flip when asked for, and what goes with each image."""
    inputs, targets = parts(spec).train
    crop = CropFlip(padding=inputs.shape[-1] // 8) if augment else None
    return TensorBatches(
        inputs, targets, batch_size, shuffle=True, order_seed=order_seed, augment=crop, augment_seed=augment_seed,
        extra=extra,
    )  # fmt: skip


def fixed_batches(pair: data.Pair, batch_size: int, most: int | None = None) -> TensorBatches:
    """The first `most` examples in their order."""
    return TensorBatches(pair.inputs[:most], pair.targets[:most], batch_size)


def reading_batches(recipe: Reading) -> dict[Split, TensorBatches]:
    """Loaders of a reading's splits."""
    held = parts(recipe.data)
    splits: dict[Split, TensorBatches] = {
        "train": fixed_batches(held.read, recipe.batch_size),
        "test": fixed_batches(held.test, recipe.batch_size, recipe.data.n_test),
    }
    return {name: splits[name] for name in recipe.splits}


def statistics_batches(recipe: Reading, model: nn.Module) -> TensorBatches | None:
    """Loader of the images for batch-norm statistics, none of which is read; None for a model without batch norm.

    Raises
    ------
    UsageError
        The model needs them, and the data set none aside.
    """
    if not batch_norms(model):
        return None
    if not recipe.data.n_statistics:
        raise UsageError(f"{recipe.model.name} has batch norm, whose statistics need images: set data.n_statistics")
    return fixed_batches(parts(recipe.data).statistics, recipe.batch_size)


@dataclass(frozen=True)
class Resolver:
    """Finds the points that a recipe refers to, beside the folder of its own run."""

    model: nn.Module
    folder: RunFolder

    def point(self, ref: PointRef) -> Point:
        """The point of a reference; an average comes without buffers.

        Raises
        ------
        UsageError
            The run diverged before that step, or a file changed since the recipe was made.
        """
        if isinstance(ref, AtLoss):
            ref = at_loss(self.folder, ref)
        if isinstance(ref, Snapshot):
            return self.space.point(self._snapshot(ref))
        if isinstance(ref, Average):
            vectors = [self.space.point(self._snapshot(part)).vector for part in ref.of]
            return Point(_mean(vectors), origin="average")
        if isinstance(ref, Bend):
            bends = files.read_tensors(_curve(self.folder, ref))[0]
            return Point(bends[f"point.{ref.index}"], origin=ref.run)
        return self._from_file(ref)

    @property
    def space(self) -> WeightSpace:
        """The space of the model's weights."""
        return WeightSpace(self.model)

    def _snapshot(self, ref: Snapshot) -> dict[str, Tensor]:
        return files.read_tensors(checkpoint(self.folder, ref))[0]

    def _from_file(self, ref: File) -> Point:
        if files.sha256(ref.path) != ref.sha256:
            raise UsageError(f"{ref.path} changed since this recipe was made; start the command again")
        return self.space.point(ref.path)


def checkpoint(folder: RunFolder, ref: Snapshot, form: Literal["step", "fork"] = "step") -> Path:
    """The file of a snapshot (weights) or a fork (whole state) of a run beside `folder`.

    Raises
    ------
    PointMissingError
        That run diverged before, or did not start because another one had.
    UsageError
        It ran, and keeps nothing at that step.
    """
    run = RunFolder(folder.path.parent / ref.run)
    path = run.path / "checkpoints" / f"{form}-{ref.step:06d}.safetensors"
    if path.exists():
        return path
    if (run.path / "results" / "missing.json").exists() or run.result("outcome")["diverged_at"] is not None:
        raise PointMissingError(f"{ref.run} has no {form} at step {ref.step}: it diverged before")
    times = "snapshots" if form == "step" else "forks"
    raise UsageError(f"{ref.run} keeps no {form} at step {ref.step}; put that time into its {times}")


def at_loss(folder: RunFolder, ref: AtLoss) -> Snapshot:
    """The snapshot that a reference by training loss means.

    Raises
    ------
    PointMissingError
        No kept epoch of the run is as low, or the other run diverged before its snapshot.
    UsageError
        The other run's snapshot lies inside an epoch, where no training loss is noted.
    """
    losses = [_epoch_losses(folder, run) for run in (ref.run, ref.like.run)]
    if ref.like.step not in losses[1]:
        checkpoint(folder, ref.like)
        raise UsageError(f"{ref.like.run} has no training loss at step {ref.like.step}: take the end of an epoch")
    goal, kept = losses[1][ref.like.step], RunFolder(folder.path.parent / ref.run).path / "checkpoints"
    for step, loss in losses[0].items():
        if loss <= goal and (kept / f"step-{step:06d}.safetensors").exists():
            return Snapshot(run=ref.run, step=step)
    raise PointMissingError(f"no kept epoch of {ref.run} has a training loss of {goal:g} or less")


def _epoch_losses(folder: RunFolder, run: str) -> dict[int, float]:
    rows = RunFolder(folder.path.parent / run).journal()
    return {row["step"]: row["loss"] for row in rows if "diverged" not in row}


def _curve(folder: RunFolder, ref: Bend) -> Path:
    run = RunFolder(folder.path.parent / ref.run)
    if (run.path / "results" / "missing.json").exists() or run.result("curve")["diverged"]:
        raise PointMissingError(f"{ref.run} has no bend: it diverged, or an end of it is missing")
    return run.path / "results" / "curve.safetensors"


def _mean(vectors: list[Tensor]) -> Tensor:
    return torch.stack([vector.double() for vector in vectors]).mean(0).to(vectors[0].dtype)

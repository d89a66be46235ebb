"""From a recipe's references to points, and to networks at them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from closerlook import files
from closerlook.batches import feed_for
from closerlook.errors import NotFiniteError, PointMissingError, UsageError
from closerlook.evaluation import batch_norms, estimate_batch_stats
from closerlook.landscape import load_curve
from closerlook.runs.recipe import (
    Aligned,
    AtLoss,
    Average,
    Bend,
    Control,
    DataSpec,
    File,
    ModelSpec,
    PointRef,
    Snapshot,
)
from closerlook.runs.store import RunFolder
from closerlook.steps.setting import fixed_batches, network, parts
from closerlook.weights import Point, WeightSpace, loaded


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
        if isinstance(ref, Aligned):
            return self.space.point(files.read_tensors(_aligned(self.folder, ref))[0])
        if isinstance(ref, Control):
            return load_curve(_unchanged(ref), self.model).points[ref.index]
        return self.space.point(_unchanged(ref))

    @property
    def space(self) -> WeightSpace:
        """The space of the model's weights."""
        return WeightSpace(self.model)

    def _snapshot(self, ref: Snapshot) -> dict[str, Tensor]:
        return files.read_tensors(checkpoint(self.folder, ref))[0]


def _unchanged(ref: File | Control) -> str:
    if files.sha256(ref.path) != ref.sha256:
        raise UsageError(f"{ref.path} changed since this recipe was made; start the command again")
    return ref.path


class _Read(Protocol):
    """A recipe that reads networks at points."""

    @property
    def data(self) -> DataSpec: ...

    @property
    def batch_size(self) -> int: ...


def network_at(spec: ModelSpec, ref: PointRef, recipe: _Read, folder: RunFolder) -> nn.Module:
    """The network with a point's weights; without batch-norm statistics it gets those of the images kept for them."""
    find = Resolver(network(spec, recipe.data, seed=0), folder)
    point = find.point(ref)
    model = loaded(find.model, point)
    if batch_norms(model) and not point.buffers:
        statistics = fixed_batches(parts(recipe.data).statistics, recipe.batch_size)
        estimate_batch_stats(model, statistics, feed_for(model)[1])
    return model


@contextmanager
def overflow_is_missing(*refs: PointRef | None) -> Iterator[None]:
    """A run of ours whose weights are finite, and what they compute is not, has diverged there: its point is missing.

    A checkpoint that was made elsewhere keeps its error.
    """
    try:
        yield
    except NotFiniteError as error:
        if any(isinstance(ref, File) for ref in refs):
            raise
        raise PointMissingError(f"nothing to read: {error}") from error


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
    return {row["step"]: row["loss"] for row in RunFolder(folder.path.parent / run).epochs()}


def _aligned(folder: RunFolder, ref: Aligned) -> Path:
    run = RunFolder(folder.path.parent / ref.run)
    if (run.path / "results" / "missing.json").exists():
        raise PointMissingError(f"{ref.run} aligned nothing: an end of it is missing")
    return run.path / "results" / "aligned.safetensors"


def _curve(folder: RunFolder, ref: Bend) -> Path:
    run = RunFolder(folder.path.parent / ref.run)
    at_end = run.path / "results" / "curve.safetensors"
    path = at_end if ref.step is None else run.path / "checkpoints" / f"step-{ref.step:06d}.safetensors"
    if path.exists():
        return path
    if (run.path / "results" / "missing.json").exists() or run.result("curve")["diverged"]:
        raise PointMissingError(f"{ref.run} has no bend: it diverged, or an end of it is missing")
    raise UsageError(f"{ref.run} keeps no bends at step {ref.step}; put that time into its snapshots")


def _mean(vectors: list[Tensor]) -> Tensor:
    return torch.stack([vector.double() for vector in vectors]).mean(0).to(vectors[0].dtype)

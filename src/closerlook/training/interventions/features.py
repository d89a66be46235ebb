"""Matching a student's features to a teacher's."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from closerlook.activations import Layer, choose
from closerlook.activations.hooks import Listing, listening
from closerlook.activations.outputs import tensor_in
from closerlook.batches import Feed, Output, batches_of
from closerlook.errors import LayerError, UsageError
from closerlook.training.interventions.change import Change, Intervention, Subject
from closerlook.training.interventions.teacher import Answers, fingerprint
from closerlook.views import buffers_kept

Pairs = Sequence[tuple[Layer, Layer]]


@dataclass(frozen=True, repr=False)
class MatchFeatures(Intervention):
    """Train a layer to find the same examples alike as a layer of a teacher does.

    **What.** Only the loss that is trained changes. `layers` pairs names, student's to teacher's; patterns with
    wildcards match as many layers on both sides, paired in the order of the forward pass. The teacher runs as in
    `Distil`; with it, a step has two forward passes of the teacher. Similarities are those within a batch: the loss of
    an example depends on what else is in it.

    **Formula.** For b examples with activations A [b, units], the rows of ``A A^T`` divided by their lengths are
    ``G`` [b, b]; added to the loss of example i is ``weight`` times the sum over pairs of
    ``mean_j (G_student - G_teacher)_ij^2``, whose mean over the batch is ``|G_student - G_teacher|^2 / b^2``.

    The hints of FitNets (arXiv 1412.6550) compare activations through a trained linear map when widths differ. That map
    has weights of its own to tune and to resume, and can absorb what the layer would have to learn; similarities of
    examples need none, whatever the shapes are.

    **Cost.** A forward pass of the teacher and two products ``A A^T`` for every pair and step: for one pair 1.47 times
    a plain step with a teacher of the student's size, 1.96 with one of twice the width (``benchmarks/distil.py``).

    **Source.** Tung and Mori 2019 (arXiv 1907.09682), section 3, whose weight is 3000.

    Examples
    --------
    >>> import closerlook as cl
    >>> student, teacher = (nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 4)) for width in (3, 8))
    >>> matched = MatchFeatures(teacher, {"1": "1"}, weight=100.0)
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> cl.train(student, data, lr=0.1, epochs=2, interventions=[matched]).diverged_at is None
    True
    """

    teacher: nn.Module
    layers: Mapping[str, str]
    weight: float
    kind: Literal["match_features"] = "match_features"

    def __repr__(self) -> str:
        """The settings, with the teacher by its weights."""
        return f"MatchFeatures({fingerprint(self.teacher)}, {dict(self.layers)!r}, weight={self.weight!r})"

    def bind(self, subject: Subject) -> Change:
        """Check the weight, and find the layers on one batch."""
        if not 0 <= self.weight < math.inf:
            raise UsageError(f"matched features take a finite weight of at least 0, not {self.weight}")
        if not isinstance(self.layers, Mapping) or not self.layers:
            raise UsageError(f"layers to match are a mapping from the student's to the teacher's, not {self.layers!r}")
        answers = Answers(self.teacher, subject.loader, subject.feed)
        with closing(batches_of(subject.loader)) as batches, buffers_kept(subject.model), torch.no_grad():
            batch = next(batches)
            student = _called(subject.model, list(self.layers), batch, replace(subject.feed, autocast=None))
            teacher = _called(answers.model, list(self.layers.values()), batch, answers.feed)
        pairs = [pair for names in self.layers.items() for pair in _paired(names, student, teacher)]
        return _Matched(answers, pairs, self.weight)


def _called(model: nn.Module, patterns: Sequence[str], batch: Any, feed: Feed) -> tuple[Layer, ...]:
    listing = Listing(patterns)
    with listening(model, listing.told):
        n = len(feed(model, batch).loss)
    return listing.layers(n)


def _paired(names: tuple[str, str], student: Sequence[Layer], teacher: Sequence[Layer]) -> Pairs:
    found = choose(student, names[:1]), choose(teacher, names[1:])
    if len(found[0]) != len(found[1]):
        told = " and ".join(", ".join(layer.name for layer in side) for side in found)
        raise LayerError(f"{names[0]!r} and {names[1]!r} match other numbers of layers: {told}")
    return list(zip(*found, strict=True))


class _Matched(Change):
    def __init__(self, answers: Answers, pairs: Pairs, weight: float) -> None:
        self._answers, self._pairs, self._weight = answers, pairs, weight
        self._student, self._teacher = (list(side) for side in zip(*pairs, strict=True))

    def feed(self, feed: Feed) -> Feed:
        def matched(model: nn.Module, batch: Any) -> Output:
            with _similarities(model, self._student) as student:
                output = feed.batch_fn(model, batch)
            with _similarities(self._answers.model, self._teacher) as teacher:
                self._answers(batch)
            apart = [(student[one.name] - teacher[two.name]).square().mean(1) for one, two in self._pairs]
            return replace(output, loss=output.loss + self._weight * torch.stack(apart).sum(0).to(output.loss))

        # Without a weight the teacher is not asked: a plain training to the last bit, at its price.
        return replace(feed, batch_fn=matched) if self._weight else feed


@contextmanager
def _similarities(model: nn.Module, layers: Sequence[Layer]) -> Iterator[dict[str, Tensor]]:
    """Those of the examples of the batch that the model is shown inside, by layer."""
    found, calls = dict[str, Tensor](), Counter[str]()

    def told(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        calls[name] += 1
        for layer in layers:
            if (layer.module, layer.call) == (name, calls[name]):
                tensor = tensor_in(output, layer.output)
                assert tensor is not None  # as `choose` has seen
                found[layer.name] = similarities(tensor)

    with listening(model, told, {layer.module for layer in layers}):
        yield found


def similarities(activations: Tensor) -> Tensor:
    """Products of the examples' activations [n, ...] with each other, the rows of the matrix [n, n] of length 1.

    Examples
    --------
    >>> similarities(torch.tensor([[3.0, 0.0], [4.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.6000, 0.8000]])
    """
    # A copy: what comes next may write into the activations (ReLU(inplace=True)).
    wide = torch.promote_types(activations.dtype, torch.float32)
    with torch.autocast(activations.device.type, enabled=False):
        rows = activations.to(wide, copy=True).flatten(1)
        return nn.functional.normalize(rows @ rows.T, dim=1)

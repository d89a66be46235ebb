"""Freezing a block for a span of the training, exactly."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from closerlook.durations import Duration, to_steps
from closerlook.errors import UsageError
from closerlook.training.interventions.change import Change, Intervention, Patterns, Subject, norms_of


@dataclass(frozen=True)
class Freeze(Intervention):
    """Keep some parameters as they are from `begin` until `end`; then they are trained like the others.

    **What.** A frozen parameter gets no update, no weight decay and no momentum, and does not count in the norm that
    gradients are clipped by. It thaws once, with an empty or its earlier momentum; the observations say at which step.
    Layers in front of it are trained through it.

    **Formula.** ``w(step + 1) = w(step)`` for ``begin <= step < end``.

    **Norm layers.** Those of the block: ``norm="train"`` lets them go on normalising by the batch and collecting
    statistics, ``norm="eval"`` makes them use the statistics that they have.

    **Cost.** None to speak of; the gradient of a frozen block is computed and thrown away.

    **Source.** Gotmare et al. 2019 (arXiv 1810.13243), section 4: the fully connected layers frozen in place of a
    warmup.

    Examples
    --------
    >>> Freeze("head.*", end="200it").norm
    'train'
    """

    params: Patterns
    end: Duration
    begin: Duration = 0
    but: Patterns = ()
    norm: Literal["train", "eval"] = "train"
    kind: Literal["freeze"] = "freeze"

    def bind(self, subject: Subject) -> Change:
        """Check names and span."""
        begin, end = to_steps(self.begin, subject.clock), to_steps(self.end, subject.clock)
        if not begin < end:
            raise UsageError(f"a freeze from step {begin} to step {end} freezes nothing; move 'end' behind 'begin'")
        return _Frozen(subject, subject.matching(self.params, self.but), range(begin, end), self.norm)


class _Frozen(Change):
    def __init__(self, subject: Subject, names: Collection[str], span: range, norm: Literal["train", "eval"]) -> None:
        self._names, self._span = names, span
        self._norms = list(norms_of(subject.model, names)) if norm == "eval" else []

    def begin(self, step: int) -> None:
        for module in self._norms:
            module.train(step not in self._span)

    def frozen(self, step: int) -> Collection[str]:
        return self._names if step in self._span else ()

    def says(self, step: int) -> Mapping[str, Collection[str]]:
        word = {self._span.start: "frozen", self._span.stop: "thawed"}.get(step)
        return {word: self._names} if word else {}

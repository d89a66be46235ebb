"""Freezing a block for a span of the training, exactly."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from torch import nn

from closerlook.durations import Duration, to_steps
from closerlook.errors import UsageError
from closerlook.training.interventions.change import Change, Intervention, Patterns, Subject


@dataclass(frozen=True)
class Freeze(Intervention):
    """Keep some parameters as they are from `begin` until `end`; then they are trained like the others.

    **What.** A frozen parameter gets no update, no weight decay and no momentum, and does not count in the norm that
    gradients are clipped by. It thaws once, with an empty or its earlier momentum; the observations say at which step.
    Layers in front of it are trained through it. Where freezes overlap, it thaws when the last of them ends.

    **Formula.** ``w(step + 1) = w(step)`` for ``begin <= step < end``.

    **Norm layers.** Those with statistics, of which a parameter is frozen: ``norm="train"`` lets them go on normalising
    by the batch and collecting statistics, ``norm="eval"`` makes them use the statistics that they have.

    **Cost.** The gradient of a frozen block is computed and thrown away; with SGD also a copy of the block and of its
    momentum per step.

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
        if self.norm not in ("train", "eval"):
            raise UsageError(f"the norm layers of a frozen block are left in 'train' or 'eval', not {self.norm!r}")
        begin, end = to_steps(self.begin, subject.clock), to_steps(self.end, subject.clock)
        if not begin < end:
            raise UsageError(f"a freeze from step {begin} to step {end} freezes nothing; move 'end' behind 'begin'")
        if begin >= subject.clock.total_steps:
            total = subject.clock.total_steps
            raise UsageError(f"a freeze from step {begin} on freezes nothing in a run of {total} steps; begin earlier")
        names = subject.matching(self.params, self.but)
        norms = subject.norms(self.params, self.but) if self.norm == "eval" else []
        return _Frozen(names, norms, range(begin, end))


class _Frozen(Change):
    def __init__(self, names: Collection[str], norms: Collection[nn.Module], span: range) -> None:
        self._names, self._norms, self._span = names, norms, span

    def still(self, step: int) -> Collection[nn.Module]:
        return self._norms if step in self._span else ()

    def frozen(self, step: int) -> Collection[str]:
        return self._names if step in self._span else ()

"""Distillation: the soft targets of a teacher."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from closerlook.batches import BatchFn, Feed, Output, batches_of
from closerlook.errors import UsageError
from closerlook.training.interventions.change import Change, Intervention, Subject
from closerlook.training.interventions.teacher import Answers, as_logits, fingerprint
from closerlook.views import buffers_kept


@dataclass(frozen=True, repr=False)
class Distil(Intervention):
    """Train towards the softened answers of a teacher, beside the labels.

    **What.** Only the loss that is trained changes. The teacher sees the batch that the student sees, augmentation
    included; a copy of it runs in eval mode, without gradients and outside autocast. Without a teacher (``None``) its
    logits come with the batches ``(x, y, logits)``: those of `teacher_logits`, for inputs that stay as they are.

    **Formula.** ``(1 - mixing) loss + mixing T^2 KL(p || q)`` per example, in nats, with ``p = softmax(teacher / T)``,
    ``q = softmax(student / T)`` for logits [n, classes]. The source takes the cross-entropy of p and q, which differs
    by the entropy of p, a constant in the student: same gradient, but KL is 0 where both agree. The gradient with
    respect to the student's logits is ``mixing T (q - p)``; for large T it is ``mixing / classes`` times the difference
    of the logits, each centred: the regression of logits.

    **Cost.** A forward pass of the teacher per step and one copy of its weights: 1.33 times a plain step for a teacher
    of the student's size, 1.7 for one of twice the width (VGG-11, one thread; ``benchmarks/distil.py``). With cached
    logits 1.0 to 1.03, and one forward pass per training image before.

    **Source.** Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2; Beyer et al. 2022 (arXiv 2106.05237) on
    teachers that see the student's crop.

    Examples
    --------
    >>> import closerlook as cl
    >>> data, teacher = [(torch.eye(4), torch.arange(4))], nn.Linear(4, 4)
    >>> taught = cl.train(nn.Linear(4, 4), data, lr=0.1, epochs=2, interventions=[Distil(teacher, temperature=2.0)])
    >>> taught.diverged_at is None
    True
    """

    teacher: nn.Module | None
    temperature: float = 4.0
    mixing: float = 0.9
    kind: Literal["distil"] = "distil"

    def __repr__(self) -> str:
        """The settings, with the teacher by its weights."""
        return f"Distil({fingerprint(self.teacher)}, temperature={self.temperature!r}, mixing={self.mixing!r})"

    def bind(self, subject: Subject) -> Change:
        """Check the numbers, and on one batch that student and teacher have logits of the same classes."""
        if not 0 < self.temperature < math.inf:
            raise UsageError(f"distillation takes a finite temperature above 0, not {self.temperature}")
        if not 0 <= self.mixing <= 1:
            raise UsageError(f"distillation takes a mixing between 0 (labels) and 1 (teacher), not {self.mixing}")
        told = _carried if self.teacher is None else Answers(self.teacher, subject.loader, subject.feed).logits
        distilled = _Distilled(told, self.temperature, self.mixing)
        with closing(batches_of(subject.loader)) as batches, buffers_kept(subject.model), torch.no_grad():
            batch = next(batches)
            replace(subject.feed, batch_fn=distilled.around(subject.feed.batch_fn))(subject.model, batch)
            if not bool(told(batch).isfinite().all()):
                raise UsageError("the teacher's logits are not finite: did its training diverge?")
        return distilled


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))`` in nats, one per example [n], for logits [n, classes].

    Examples
    --------
    >>> soft_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]), 4.0)
    tensor([0.])
    """
    told, said = (nn.functional.log_softmax(logits / temperature, dim=1) for logits in (teacher, student))
    return temperature**2 * nn.functional.kl_div(said, told, reduction="none", log_target=True).sum(1)


class _Distilled(Change):
    def __init__(self, told: Callable[[Any], Tensor], temperature: float, mixing: float) -> None:
        self._told, self._temperature, self._mixing = told, temperature, mixing

    def feed(self, feed: Feed) -> Feed:
        # Without a share of its own the teacher is not asked: a plain training to the last bit, at its price.
        return replace(feed, batch_fn=self.around(feed.batch_fn)) if self._mixing else feed

    def around(self, batch_fn: BatchFn) -> BatchFn:
        def distilled(model: nn.Module, batch: Any) -> Output:
            output = batch_fn(model, batch)
            student = as_logits(output, "the student").to(output.loss.dtype)
            teacher = self._told(batch).to(student)
            if student.shape != teacher.shape:
                shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
                raise UsageError(f"the logits of student and teacher have the shapes {shapes}: other classes?")
            soft = soft_loss(student, teacher, self._temperature)
            return replace(output, loss=(1 - self._mixing) * output.loss + self._mixing * soft)

        return distilled


def _carried(batch: Any) -> Tensor:
    if isinstance(batch, tuple | list) and len(batch) == 3 and isinstance(batch[2], Tensor) and batch[2].ndim == 2:
        return batch[2]
    raise UsageError(
        "distillation without a teacher needs batches (x, y, logits); pass a teacher, or "
        "TensorBatches(..., extra=teacher_logits(...)) with batch_fn=closerlook.batches.without_extra()"
    )

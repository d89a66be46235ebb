"""Label smoothing."""

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from closerlook.batches import BatchFn, Feed, Output, batches_of
from closerlook.errors import UsageError
from closerlook.training.interventions.change import Change, Intervention, Subject
from closerlook.views import buffers_kept


@dataclass(frozen=True)
class LabelSmoothing(Intervention):
    """Train towards targets that leave a share to all classes alike.

    **What.** Only the loss that is trained changes; validation and history of accuracies do not.

    **Formula.** ``(1 - share) loss + share mean over classes of -log p``, for logits [n, classes]; with cross-entropy
    that is the ``label_smoothing`` of PyTorch.

    **Cost.** One log-softmax of the logits, and one forward pass before the first step.

    **Source.** Szegedy et al. 2016 (arXiv 1512.00567), section 7.

    Examples
    --------
    >>> LabelSmoothing(0.1).share
    0.1
    """

    share: float
    kind: Literal["label_smoothing"] = "label_smoothing"

    def bind(self, subject: Subject) -> Change:
        """Check the share, and on one batch that there are logits."""
        if not 0 <= self.share < 1:
            raise UsageError(f"label smoothing takes a share of at least 0 and below 1, not {self.share}")
        smoothed = _Smoothed(self.share)
        with closing(batches_of(subject.loader)) as batches, buffers_kept(subject.model), torch.no_grad():
            smoothed.feed(subject.feed)(subject.model, next(batches))
        return smoothed


class _Smoothed(Change):
    def __init__(self, share: float) -> None:
        self._share = share

    def feed(self, feed: Feed) -> Feed:
        return replace(feed, batch_fn=_smoothed(feed.batch_fn, self._share))


def _smoothed(batch_fn: BatchFn, share: float) -> BatchFn:
    def smoothed(model: nn.Module, batch: Any) -> Output:
        output = batch_fn(model, batch)
        logits = output.outputs
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise UsageError("label smoothing needs a batch_fn whose outputs are logits [n, classes]")
        uniform = -nn.functional.log_softmax(logits.to(output.loss.dtype), dim=1).mean(1)
        return replace(output, loss=(1 - share) * output.loss + share * uniform)

    return smoothed

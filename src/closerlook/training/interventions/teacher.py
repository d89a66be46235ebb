"""A teacher: a copy of a network that only answers."""

import copy
import hashlib
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.batches import BatchFn, Feed, Loader, Output, batches_of, feed_for
from closerlook.errors import UsageError
from closerlook.layout import fitting_layout, in_layout, lay_out
from closerlook.weights import named


class Answers:
    """What a teacher says to a batch: in eval mode, without gradients, in its own precision (no autocast).

    One copy is made, on the feed's device and in a layout that it can bear; the network that was given is never run.
    """

    def __init__(self, teacher: nn.Module, loader: Loader, feed: Feed) -> None:
        if not isinstance(teacher, nn.Module):
            found = type(teacher).__name__
            raise UsageError(f"a teacher is a module, not a {found}; closerlook.loaded(module, checkpoint) makes one")
        self.model = copy.deepcopy(teacher).to(feed.device).eval().requires_grad_(False)
        feed = replace(feed, autocast=None)
        asked = torch.contiguous_format if feed.contiguous else torch.channels_last
        layout = fitting_layout(self.model, loader, feed, asked)
        lay_out(self.model, layout)
        self.feed = in_layout(feed, layout)

    def __call__(self, batch: Any) -> Output:
        """The output of a batch that the student's batch function takes."""
        with torch.no_grad():
            return self.feed(self.model, batch)

    def logits(self, batch: Any) -> Tensor:
        """The logits [n, classes] of a batch."""
        return as_logits(self(batch), "the teacher")


def as_logits(output: Output, whose: str) -> Tensor:
    """The logits of an output.

    Raises
    ------
    UsageError
        The batch function returned other outputs.
    """
    logits = output.outputs
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise UsageError(f"distillation needs a batch_fn whose outputs are logits [n, classes]; {whose} gave others")
    return logits


def teacher_logits(
    teacher: nn.Module,
    loader: Loader,
    *,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> Tensor:
    """The teacher's logits [n, classes] for every example of a loader, in its order: soft targets of fixed inputs.

    Handed out with their inputs (``TensorBatches(..., extra=logits)``) they replace the teacher in `Distil`. They are
    those of the inputs as the loader gives them: under augmentation the student then sees a crop and the teacher's
    answer to the whole image. Batches of another size may round the last bits otherwise.

    Examples
    --------
    >>> teacher_logits(nn.Linear(4, 3), [(torch.ones(2, 4), torch.tensor([0, 1]))]).shape
    torch.Size([2, 3])
    """
    answers = Answers(teacher, loader, feed_for(teacher, batch_fn, device)[1])
    with closing(batches_of(loader)) as batches:
        return torch.cat([answers.logits(batch) for batch in batches])


def fingerprint(model: nn.Module | None) -> str:
    """A short name of a network's structure and weights, so that a folder goes on only with the same teacher."""
    if not isinstance(model, nn.Module):
        return repr(model)
    digest = hashlib.sha256(repr(model).encode())
    for name, value in named(model).state().items():
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy())
    return f"{type(model).__name__} {digest.hexdigest()[:16]}"

"""The modes in which curvature is read, and the losses of a batch in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from closerlook.errors import LoaderError, MismatchError, UsageError
from closerlook.evaluation import batch_norms, modes_kept, statistics_flaw
from closerlook.views import buffers_kept
from closerlook.weights import named

BatchNorm = Literal["batch", "running"]
_NO_VARIANCE = ("more than 1 value per channel", "more than 1 spatial element")  # in PyTorch's words


@contextmanager
def reading(model: nn.Module, batch_norm: BatchNorm = "batch") -> Iterator[None]:
    """The modes in which curvature is read; modes and buffers come back as they were, also after an error.

    Dropout is off, and a caller's own autocast region does not reach in here. ``"batch"``: every batch is normalised by
    its own statistics, as training sees it, and they are differentiated through; ``"running"``: by the running ones,
    which are constants.

    Raises
    ------
    UsageError
        Another word.
    MismatchError
        Running statistics that cannot be used.
    LoaderError
        A batch norm has one value per channel, and so no variance to divide by.
    """
    if batch_norm not in ("batch", "running"):
        raise UsageError(f"unknown batch_norm {batch_norm!r}; choose 'batch' or 'running'")
    flaw = statistics_flaw(model, named(model).buffers) if batch_norm == "running" else None
    if flaw is not None:
        raise MismatchError(f"the model {flaw}, and batch_norm='running' uses them; use batch_norm='batch'")
    kind = next((value.device.type for value in model.parameters()), "cpu")
    with modes_kept(model), buffers_kept(model), torch.autocast(kind, enabled=False):
        model.eval()
        for layer in batch_norms(model) if batch_norm == "batch" else ():
            layer.train()
        try:
            yield
        except ValueError as error:
            if not any(words in str(error) for words in _NO_VARIANCE):
                raise
            raise LoaderError(
                f"a batch has one value per channel, which has no variance ({error}); choose a batch size that leaves "
                "no single example over, or batch_norm='running'"
            ) from error

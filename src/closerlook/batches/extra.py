"""Batches that carry more than a batch function takes: something per example that is meant for an intervention."""

from typing import Any

from torch import nn

from closerlook.batches.contract import BatchFn, Output, classification


def without_extra(batch_fn: BatchFn = classification) -> BatchFn:
    """A batch function for batches ``(x, y, extra)``: `batch_fn` gets ``(x, y)``, and any other batch as it is.

    Examples
    --------
    >>> import torch
    >>> batch = (torch.zeros(2, 4), torch.tensor([0, 1]), torch.zeros(2, 4))
    >>> without_extra()(nn.Identity(), batch).correct
    tensor([ True, False])
    """

    def bare(model: nn.Module, batch: Any) -> Output:
        return batch_fn(model, batch[:2] if isinstance(batch, tuple | list) and len(batch) == 3 else batch)

    return bare

"""Dense Hessians in float64, from PyTorch's own functional interface: what the operators are held against."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from closerlook.batches import BatchFn, classification


class Meeting(nn.Module):
    """A model and its batch function as one module, so that `functional_call` reaches both."""

    def __init__(self, model: nn.Module, batch_fn: BatchFn) -> None:
        super().__init__()
        self.model, self.batch_fn = model, batch_fn

    def forward(self, batch: Any) -> Tensor:
        return self.batch_fn(self.model, batch).loss


def dense_hessian(
    model: nn.Module,
    batches: Sequence[Any],
    batch_fn: BatchFn | None = None,
    batch_norm: str = "batch",
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """The Hessian of the mean loss over all batches, for the parameters named."""
    meeting = Meeting(copy.deepcopy(model).eval(), batch_fn or classification)
    for module in meeting.modules():
        if isinstance(module, _BatchNorm):
            module.train(batch_norm == "batch")
    found = dict(meeting.model.named_parameters())
    chosen = {name: found[name].detach() for name in names or found}

    def mean_loss(vector: Tensor) -> Tensor:
        parts = vector.split([value.numel() for value in chosen.values()])
        weights = {
            f"model.{name}": part.view(value.shape) for part, (name, value) in zip(parts, chosen.items(), strict=True)
        }
        losses = torch.cat([functional_call(meeting, weights, (batch,)) for batch in batches])
        return losses.mean()

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
        return hessian(mean_loss, torch.cat([value.reshape(-1) for value in chosen.values()])).numpy()


def top_of(matrix: np.ndarray, k: int = 1) -> np.ndarray:
    """The k largest eigenvalues, largest first."""
    return np.linalg.eigvalsh(matrix)[::-1][:k]

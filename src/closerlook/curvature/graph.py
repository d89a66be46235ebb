"""The graph of a gradient, which can be differentiated once more."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from closerlook.batches import Feed
from closerlook.errors import NotFiniteError, UsageError

_ONCE = ("is not implemented", "twice", "double backward")  # in PyTorch's words


class GradientGraph:
    """The gradient of one batch's summed loss, with the graph that leads to it; `.n` examples, `.loss` their sum."""

    def __init__(self, model: nn.Module, batch: Any, feed: Feed, parameters: Sequence[Tensor]) -> None:
        self._parameters, self.scale = parameters, 1.0
        # The fused kernels of attention have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _twice_differentiable():
            output = feed(model, batch).loss
            found = torch.autograd.grad(output.sum(), parameters, create_graph=True, allow_unused=True)
        self.n, self.loss = len(output), float(output.detach().double().sum())
        # Of a loss that is linear in some weights the gradient is constant there, and has no graph.
        self._moving = [number for number, grad in enumerate(found) if grad is not None and grad.requires_grad]
        self._gradients = [found[number] for number in self._moving]

    def product(self, parts: Sequence[Tensor]) -> Tensor:
        """The derivative of the gradient along a vector, given by its parts: the Hessian's product, times `scale`."""
        if not self._gradients:
            return flat([None] * len(self._parameters), self._parameters)
        directions = [parts[number] for number in self._moving]
        with _twice_differentiable():
            found = torch.autograd.grad(
                self._gradients, self._parameters, directions, retain_graph=True, allow_unused=True
            )
        return flat(found, self._parameters).mul_(self.scale)


def finite(vector: Tensor, what: str) -> Tensor:
    """The vector, or a NotFiniteError that says what it is."""
    if not bool(torch.isfinite(vector).all()):
        raise NotFiniteError(f"{what} is NaN or infinite at these weights; read earlier ones, or in a wider type")
    return vector


def flat(found: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """Derivatives by parameter as one vector, zero where there is none."""
    parts = [
        torch.zeros_like(value) if part is None else part.to_dense() if part.is_sparse else part
        for part, value in zip(found, parameters, strict=True)
    ]
    return torch.cat([part.detach().reshape(-1) for part in parts])


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in _ONCE):
            raise
        raise UsageError(
            f"an operation of the network cannot be differentiated twice ({error}); use another implementation of it "
            "(the model before torch.compile, sparse=False, an LSTM without its fused kernel)"
        ) from error

"""The Hessian of the mean loss as an operator: products with vectors, on the live model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from closerlook.batches import Feed, Loader, batches_of
from closerlook.curvature.graph import GradientGraph, finite, flat
from closerlook.errors import NotFiniteError, UsageError
from closerlook.views import check_type
from closerlook.weights import WeightSpace, named


class HessianOperator:
    """Products of the Hessian of the mean loss, ``H v`` with ``H = d^2 L / dw^2``, ``L = sum_i loss_i / n``.

    The model is used where it is, nothing is copied or probed: an observer of a training can afford it. Use it inside
    ``with reading(model, batch_norm):``, which sets the modes and puts everything back. Counters `.products` and
    `.gradients` tell what was done, `.passes` what it cost. The weights must not change while it lives: with a single
    batch the graph of the gradient is kept, and a product costs its second backward pass alone.

    Parameters
    ----------
    model
        On the feed's device.
    loader
        Fixed batches; each product runs through all of them.
    space
        The coordinates. Frozen parameters (``requires_grad=False``) are left out: vectors here have `.size` entries,
        `spread` puts zeros where the frozen ones are.
    names
        Restricts it to some of them: the diagonal block of these parameters.

    Raises
    ------
    UsageError
        Every parameter is frozen, or an operation of the network cannot be differentiated twice.

    Examples
    --------
    >>> from closerlook.curvature import reading
    >>> batches = [(torch.ones(2, 3), torch.tensor([0, 1]))]
    >>> model = nn.Linear(3, 2)
    >>> with reading(model):
    ...     H = HessianOperator(model, batches, Feed(torch.device("cpu")), WeightSpace(model))
    ...     H.product(torch.zeros(8)).shape
    torch.Size([8])
    """

    def __init__(
        self, model: nn.Module, loader: Loader, feed: Feed, space: WeightSpace, names: Sequence[str] | None = None
    ) -> None:
        every = named(model).parameters
        asked = space.names if names is None else tuple(names)
        self.names = tuple(name for name in asked if every[name].requires_grad)
        if not self.names:
            raise UsageError(
                f"all of {', '.join(asked[:3])}{', ...' if len(asked) > 3 else ''} are frozen "
                "(requires_grad=False): there is no curvature to read; unfreeze what you mean"
            )
        self._parameters: list[Tensor] = [every[name] for name in self.names]
        self._space_spans = {name: span for name, _, span in space.slices()}
        self._space_size = space.size
        self._lengths = [value.numel() for value in self._parameters]
        # Second derivatives of convolutions are faster in the contiguous layout, which follows the input's.
        self._model, self._loader, self._feed = model, loader, replace(feed, contiguous=True)
        self._graph: GradientGraph | None = None
        self.size = sum(self._lengths)
        self.n = self.batches = self.products = self.gradients = 0
        self.loss = math.nan
        _check_types(self._parameters, self.names)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and of every vector."""
        return self._parameters[0].dtype

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self._parameters[0].device

    @property
    def passes(self) -> int:
        """Cost in forward and backward passes over all batches: 1 for a gradient, 2 for a second backward pass."""
        return self.gradients + 2 * self.products

    def spans(self) -> dict[str, slice]:
        """Where each parameter lies in a vector of this operator."""
        ends = torch.tensor(self._lengths).cumsum(0).tolist()
        return {name: slice(end - size, end) for name, size, end in zip(self.names, self._lengths, ends, strict=True)}

    def spread(self, vector: Tensor) -> Tensor:
        """A vector [size] as one of the whole space [D], with zeros at what is frozen or left out."""
        whole = vector.new_zeros(self._space_size)
        for name, span in self.spans().items():
            whole[self._space_spans[name]] = vector[span]
        return whole

    def gathered(self, whole: Tensor) -> Tensor:
        """The entries [size] of a vector of the whole space [D] that belong to this operator."""
        return torch.cat([whole[self._space_spans[name]] for name in self.names])

    def product(self, vector: Tensor) -> Tensor:
        """``H v`` [size].

        Raises
        ------
        NotFiniteError
            The loss or the product is NaN or infinite.
        """
        check_type(vector, self._parameters[0])
        self.products += 1
        parts = self._split(vector)
        total = self._over_batches(parts) if self._graph is None else self._graph.product(parts)
        return finite(total, "a product with the Hessian")

    def _over_batches(self, parts: Sequence[Tensor]) -> Tensor:
        total, graph = self._zeros(), None
        n, batches, loss = 0, 0, 0.0
        self.gradients += 1
        for batch in batches_of(self._loader):
            graph = None  # frees the last one before the next is made
            graph = GradientGraph(self._model, batch, self._feed, self._parameters)
            total += graph.product(parts)
            n, batches, loss = n + graph.n, batches + 1, loss + graph.loss
        self._told(n, batches, loss)
        if batches == 1 and graph is not None:
            graph.scale = 1 / n
            self._graph = graph
        return total.div_(n)

    def gradient(self) -> Tensor:
        """Gradient of the mean loss [size], in one forward and backward pass over all batches."""
        total = self._zeros()
        for _, gradient in self.batch_gradients():
            total += gradient
        return total.div_(self.n)

    def batch_gradients(self) -> Iterator[tuple[int, Tensor]]:
        """Of every batch its number of examples and the gradient [size] of the sum of their losses."""
        n, batches, loss = 0, 0, 0.0
        self.gradients += 1
        for batch in batches_of(self._loader):
            with torch.enable_grad():
                output = self._feed(self._model, batch).loss
                found = torch.autograd.grad(output.sum(), self._parameters, allow_unused=True)
            n, batches, loss = n + len(output), batches + 1, loss + float(output.detach().double().sum())
            yield len(output), finite(flat(found, self._parameters), "the gradient")
        self._told(n, batches, loss)

    def _told(self, n: int, batches: int, loss: float) -> None:
        self.n, self.batches, self.loss = n, batches, loss / n
        if not math.isfinite(loss):
            raise NotFiniteError(f"the mean loss is {self.loss:g}: there is no curvature where the loss is not finite")

    def _zeros(self) -> Tensor:
        return torch.zeros(self.size, dtype=self.dtype, device=self.device)

    def _split(self, vector: Tensor) -> list[Tensor]:
        parts = vector.split(self._lengths)
        return [part.view(value.shape) for part, value in zip(parts, self._parameters, strict=True)]


def _check_types(parameters: Sequence[Tensor], names: Sequence[str]) -> None:
    first = parameters[0]
    for name, value in zip(names, parameters, strict=True):
        if value.dtype != first.dtype or value.device != first.device:
            raise UsageError(f"{name} is {value.dtype} on {value.device}, others {first.dtype} on {first.device}")

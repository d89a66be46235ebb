"""A model that reads its weights from one flat buffer, and comes back as it was."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from closerlook.errors import MismatchError, UsageError
from closerlook.weights import WeightSpace, named


class FlatViews:
    """A model whose parameters are views of one buffer [D], and whose gradients are views of another.

    Writing `.buffer` in place moves every parameter at once. Its order is that of memory: `encode` and `decode`
    translate to and from a point's vector. `memory_format` decides the strides of weights with 4 and 5 axes, as
    `in_format` does. Gradients are added to those in the buffer, or, between `release` and `collect`, take their place.
    Never write the buffer between a forward pass and its backward pass: autograd does not notice.

    The model's own tensors are given up; `borrowed` keeps them and puts them back.
    """

    def __init__(
        self,
        model: nn.Module,
        space: WeightSpace,
        gradients: bool = False,
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> None:
        self._parameters = parameters_of(model, space)
        self._space = space
        first = self._parameters[0]
        self._strides = [_stride(value, memory_format) for value in self._parameters]
        self._spans = [span for _, _, span in space.slices()]
        self.buffer = torch.empty(space.size, dtype=first.dtype, device=first.device)
        self.gradient = torch.zeros_like(self.buffer) if gradients else None
        self._weights = list(self._views(self.buffer))
        with torch.no_grad():
            for value, view in zip(self._parameters, self._weights, strict=True):
                view.copy_(value.data)
                value.data = view
        self._grads = [] if self.gradient is None else list(self._views(self.gradient))
        for value, grad in zip(self._parameters, self._grads, strict=False):
            value.requires_grad_(True)
            value.grad = grad

    def _views(self, flat: Tensor) -> Iterator[Tensor]:
        for (_, shape, span), stride in zip(self._space.slices(), self._strides, strict=True):
            yield flat.as_strided(shape, stride, flat.storage_offset() + span.start)

    def encode(self, vector: Tensor) -> Tensor:
        """A point's vector in the order of the buffer (the same memory when the orders agree)."""
        check_type(vector, self.buffer)
        vector = vector.to(self.buffer.device)
        if all(view.is_contiguous() for view in self._views(self.buffer)):
            return vector
        encoded = torch.empty_like(self.buffer)
        for span, view in zip(self._spans, self._views(encoded), strict=True):
            view.copy_(vector[span].view(view.shape))
        return encoded

    def decode(self, flat: Tensor) -> Tensor:
        """A vector in the order of the buffer as a point's vector: a new tensor in logical order."""
        vector = torch.empty_like(flat, memory_format=torch.contiguous_format)
        for span, view in zip(self._spans, self._views(flat), strict=True):
            vector[span].view(view.shape).copy_(view)
        return vector

    def release(self) -> None:
        """Take the gradients away, so that a backward pass leaves its own and has nothing to add them to."""
        for value in self._parameters:
            value.grad = None

    def collect(self) -> list[slice]:
        """Put the gradients into the buffer; the ranges of the parameters that got none, which are 0 there."""
        self._check_weights()
        untouched = []
        with torch.no_grad():
            for value, grad, span in zip(self._parameters, self._grads, self._spans, strict=True):
                if value.grad is None:
                    untouched.append(span)
                    grad.zero_()
                else:
                    grad.copy_(value.grad.to_dense())  # that of an embedding may be sparse
                value.grad = grad
        return untouched

    def check_gradients(self) -> None:
        """Refuse to go on when a weight or a gradient was replaced: its training would stop without an error."""
        for value, grad in zip(self._parameters, self._grads, strict=True):
            if value.grad is None or value.grad.data_ptr() != grad.data_ptr():
                raise UsageError(
                    "a gradient no longer lies in the flat buffer; something called zero_grad(set_to_none=True) or "
                    "replaced p.grad (DDP: gradient_as_bucket_view=False)"
                )
        self._check_weights()

    def _check_weights(self) -> None:
        for value, view in zip(self._parameters, self._weights, strict=True):
            if value.data_ptr() != view.data_ptr():
                raise UsageError(
                    "a weight no longer lies in the flat buffer; something called .to() or another conversion of the "
                    "model: pass device and autocast instead, or convert the model before"
                )


def parameters_of(model: nn.Module, space: WeightSpace) -> list[nn.Parameter]:
    """The parameters of a space, in its order.

    Raises
    ------
    UsageError
        They have several types or devices, so that no one vector can hold them.
    """
    every = named(model).parameters
    found = [every[name] for name in space.names]
    first = found[0]
    for name, value in zip(space.names, found, strict=True):
        if value.dtype != first.dtype or value.device != first.device:
            raise UsageError(f"{name} is {value.dtype} on {value.device}, others {first.dtype} on {first.device}")
    return found


def check_type(vector: Tensor, weights: Tensor) -> None:
    """Refuse a vector that would be rounded on its way into the weights.

    Raises
    ------
    MismatchError
        Its type is not that of the weights.
    """
    if vector.dtype != weights.dtype:
        raise MismatchError(
            f"the weights are {vector.dtype}, the model is {weights.dtype}: rounding alone can look like a barrier; "
            "convert one to the other's type"
        )


def in_format(value: Tensor, memory_format: torch.memory_format) -> Tensor:
    """A tensor in a memory format: `channels_last` for 4 axes, its 3-D form for 5; others stay as they are.

    Examples
    --------
    >>> in_format(torch.zeros(2, 3, 4, 5), torch.channels_last).stride()
    (60, 1, 15, 3)
    """
    return torch.empty_like(value, memory_format=_format_of(value, memory_format)).copy_(value)


def _stride(value: Tensor, memory_format: torch.memory_format) -> tuple[int, ...]:
    # empty_like keeps the memory format of a dense tensor and gives a dense one for any other.
    return torch.empty_like(value, memory_format=_format_of(value, memory_format)).stride()


def _format_of(value: Tensor, memory_format: torch.memory_format) -> torch.memory_format:
    if value.ndim not in (4, 5):
        return torch.preserve_format
    return torch.channels_last_3d if memory_format == torch.channels_last and value.ndim == 5 else memory_format


@contextmanager
def borrowed(
    model: nn.Module,
    space: WeightSpace,
    gradients: bool = False,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Iterator[FlatViews]:
    """Flat views of a model that comes back as it was: weights, gradients, buffers, modes, also after an error."""
    own = [(value, value.data, value.grad, value.requires_grad) for value in model.parameters()]
    try:
        with buffers_kept(model), modes_kept(model):
            for value in model.parameters() if gradients else ():
                value.requires_grad_(False)
            yield FlatViews(model, space, gradients, memory_format)
    finally:
        for value, data, grad, requires_grad in own:
            value.data = data
            value.grad = grad
            value.requires_grad_(requires_grad)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put every module's training flag back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put every buffer back afterwards, its content and the tensor itself, which a model may have replaced."""
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, saved in kept:
                setattr(module, name, buffer.copy_(saved))


def load_buffers(model: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Copy buffers into the model's own, by name."""
    with torch.inference_mode():  # a model may have replaced a buffer while it was read
        for name, buffer in named(model).buffers.items():
            if name in buffers:
                buffer.copy_(buffers[name])

"""A model's parameters as one flat vector: points of weight space, and a model that reads from a buffer.

The order of the vector is that of ``named_parameters`` (tied parameters once, frozen ones included), each
parameter in its logical layout, whatever its memory format.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from closerlook import files
from closerlook.errors import MismatchError, UsageError

Weights = "Point | nn.Module | Mapping[str, Tensor] | str | Path | Tensor"


@dataclass(frozen=True, eq=False)
class Point:
    """A point of weight space: `.vector` [D], the buffers that came with it, and where it is from."""

    vector: Tensor
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    origin: str = "memory"

    @property
    def dtype(self) -> torch.dtype:
        """Type of the vector's entries."""
        return self.vector.dtype


def plain_name(name: str) -> str:
    """A parameter's name without the prefixes of DataParallel and torch.compile."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


class WeightSpace:
    """The space of a model's parameters: `.size` D and `.names`.

    Parameters
    ----------
    model
        Any module. It is only read.
    params
        Patterns of parameter names, such as ``"*"`` or ``"head.*"``; what they leave out stays as it is in
        the model.

    Raises
    ------
    UsageError
        No parameter matches.

    Examples
    --------
    >>> space = WeightSpace(nn.Linear(3, 2))
    >>> space.size, space.names
    (8, ('weight', 'bias'))
    """

    def __init__(self, model: nn.Module, params: str = "*") -> None:
        every = {plain_name(name): value for name, value in model.named_parameters()}
        self.shapes = {name: value.shape for name, value in every.items() if fnmatchcase(name, params)}
        if not self.shapes:
            raise UsageError(f"no parameter matches {params!r}; the names are {', '.join(every) or 'none'}")
        owners = {id(value): name for name, value in every.items()}
        copies = model.named_parameters(remove_duplicate=False)
        self._alias = {plain_name(name): owners[id(value)] for name, value in copies}
        self._buffers = {plain_name(name): value.shape for name, value in model.named_buffers()}
        self._saved = {plain_name(name) for name in model.state_dict()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of the vector."""
        return tuple(self.shapes)

    @property
    def size(self) -> int:
        """Number of coordinates D."""
        return sum(prod(shape) for shape in self.shapes.values())

    def slices(self) -> Iterator[tuple[str, torch.Size, slice]]:
        """Name, shape and range of every parameter in the vector."""
        start = 0
        for name, shape in self.shapes.items():
            yield name, shape, slice(start, start + prod(shape))
            start += prod(shape)

    def point(self, source: Any) -> Point:
        """The point of a model, a state dict, a checkpoint's path or a bare vector [D].

        Parameters are matched by name and shape, never by position.

        Raises
        ------
        MismatchError
            Names, shapes or types do not fit; the message lists the differences.
        """
        if isinstance(source, Point):
            return self._checked(source)
        if isinstance(source, Tensor):
            return self._checked(Point(source.detach().reshape(-1).clone()))
        if isinstance(source, nn.Module):
            return self._from_state(source.state_dict(), "model")
        if isinstance(source, Mapping):
            return self._from_state(source, "state dict")
        if isinstance(source, str | Path):
            return self._from_state(files.load_state(source), f"{source} sha256:{files.sha256(source)[:12]}")
        raise UsageError(f"cannot read weights from a {type(source).__name__}; give a model, a state dict or a path")

    def state_dict(self, point: Point) -> dict[str, Tensor]:
        """The state dict of a point: every name of its parameters (tied ones too) and its buffers."""
        self._checked(point)
        parts = {name: point.vector[span].view(shape) for name, shape, span in self.slices()}
        tied = {alias: parts[owner] for alias, owner in self._alias.items() if owner in parts}
        return {**tied, **point.buffers}

    def _checked(self, point: Point) -> Point:
        if point.vector.shape != (self.size,):
            raise MismatchError(f"a vector of {point.vector.numel()} entries for a space of {self.size}; other model?")
        return point

    def _from_state(self, state: Mapping[str, Tensor], origin: str) -> Point:
        plain = {plain_name(name): value for name, value in state.items()}
        self._compare(plain, origin)
        chosen = [plain[name].detach() for name in self.names]
        types = {value.dtype for value in chosen}
        if len(types) > 1:
            raise MismatchError(f"{origin} mixes {_listed(types)}; convert it to one type first")
        vector = torch.cat([value.reshape(-1) for value in chosen])
        buffers = {name: plain[name].detach().clone() for name in self._buffers if name in plain}
        return Point(vector, buffers, origin)

    def _compare(self, plain: Mapping[str, Tensor], origin: str) -> None:
        missing = [name for name in self.names if name not in plain]
        extra = [name for name in plain if name not in self._saved]
        shapes = [
            f"{name}: {tuple(plain[name].shape)} here, {tuple(shape)} in the model"
            for name, shape in {**self.shapes, **self._buffers}.items()
            if name in plain and plain[name].shape != shape
        ]
        problems = {"missing": missing, "not in the model": extra, "other shape": shapes}
        lines = [f"  {what}: {_listed(names)}" for what, names in problems.items() if names]
        if lines:
            raise MismatchError("\n".join([f"{origin} does not fit the model:", *lines]))


def _listed(items: Any, most: int = 6) -> str:
    texts = [str(item) for item in items]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


class FlatViews:
    """A borrowed model whose parameters are views of one buffer [D], and whose gradients are views of another.

    Writing `.buffer` in place moves every parameter at once. The buffer keeps each parameter's own memory
    format, so its order is that of memory: `encode` and `decode` translate to and from a point's vector.
    Never write the buffer between a forward pass and its backward pass: autograd does not notice.
    """

    def __init__(self, model: nn.Module, space: WeightSpace, gradients: bool = False) -> None:
        named = {plain_name(name): value for name, value in model.named_parameters()}
        self._parameters = [named[name] for name in space.names]
        self._space = space
        first = self._parameters[0]
        for name, value in zip(space.names, self._parameters, strict=True):
            if value.dtype != first.dtype or value.device != first.device:
                raise UsageError(f"{name} is {value.dtype} on {value.device}, others {first.dtype} on {first.device}")
        self._own = [(value.data, value.grad, value.requires_grad) for value in self._parameters]
        self._strides = [_dense_stride(value) for value in self._parameters]
        self.buffer = torch.empty(space.size, dtype=first.dtype, device=first.device)
        self.gradient = torch.zeros_like(self.buffer) if gradients else None
        with torch.no_grad():
            for value, view in zip(self._parameters, self._views(self.buffer), strict=True):
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
        if vector.dtype != self.buffer.dtype:
            raise MismatchError(
                f"the weights are {vector.dtype}, the model is {self.buffer.dtype}: rounding alone can look like a "
                "barrier; convert one to the other's type"
            )
        vector = vector.to(self.buffer.device)
        if all(view.is_contiguous() for view in self._views(self.buffer)):
            return vector
        encoded = torch.empty_like(self.buffer)
        for (_, shape, span), view in zip(self._space.slices(), self._views(encoded), strict=True):
            view.copy_(vector[span].view(shape))
        return encoded

    def decode(self, flat: Tensor) -> Tensor:
        """A vector in the order of the buffer as a point's vector: a new tensor in logical order."""
        return torch.cat([view.reshape(-1) for view in self._views(flat)])

    def check_gradients(self) -> None:
        """Refuse to go on when a gradient was replaced: its training would stop without an error."""
        for value, grad in zip(self._parameters, self._grads, strict=True):
            if value.grad is None or value.grad.data_ptr() != grad.data_ptr():
                raise UsageError(
                    "a gradient no longer lies in the flat buffer; something called zero_grad(set_to_none=True) or "
                    "replaced p.grad (DDP: gradient_as_bucket_view=False)"
                )

    def restore(self) -> None:
        """Give the model its own tensors back."""
        for value, (data, grad, requires_grad) in zip(self._parameters, self._own, strict=True):
            value.data = data
            value.grad = grad
            value.requires_grad_(requires_grad)


def _dense_stride(value: Tensor) -> tuple[int, ...]:
    # empty_like keeps the memory format of a dense tensor and gives a dense one for any other.
    return torch.empty_like(value).stride()


@contextmanager
def borrowed(model: nn.Module, space: WeightSpace, gradients: bool = False) -> Iterator[FlatViews]:
    """Flat views of a model that comes back as it was: weights, gradients, buffers, modes, also after an error."""
    modes = [(module, module.training) for module in model.modules()]
    frozen = [value for value in model.parameters() if value.requires_grad] if gradients else []
    for value in frozen:
        value.requires_grad_(False)
    views = None
    try:
        with buffers_kept(model):
            views = FlatViews(model, space, gradients)
            yield views
    finally:
        if views is not None:
            views.restore()
        for value in frozen:
            value.requires_grad_(True)
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
        for name, buffer in model.named_buffers():
            if plain_name(name) in buffers:
                buffer.copy_(buffers[plain_name(name)])


def gram(vectors: list[Tensor], origin: Tensor, chunk: int = 1 << 20) -> Tensor:
    """Inner products of the differences v_i - origin in float64: a matrix [K, K].

    Differences and sums run in float64, chunk by chunk: a float32 dot product over 15 million entries is off
    by 5e-4.

    Examples
    --------
    >>> gram([torch.ones(3), torch.arange(3.0)], origin=torch.zeros(3))
    tensor([[3., 3.],
            [3., 5.]], dtype=torch.float64)
    """
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for start in range(0, vectors[0].numel(), chunk):
        span = slice(start, start + chunk)
        part = torch.stack([vector[span].double().cpu() - origin[span].double().cpu() for vector in vectors])
        total += part @ part.T
    return total


def distance(a: Tensor, b: Tensor) -> float:
    """Euclidean distance of two vectors, summed in float64."""
    return float(torch.linalg.vector_norm(a.double().cpu() - b.double().cpu()))

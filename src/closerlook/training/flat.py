"""An optimizer for flat vectors: one gradient for all of them, the bits of any other way."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from closerlook.training.checkpoint import load_optimizer, optimizer_tensors
from closerlook.training.optimizers import REGISTER, OptimizerFactory

CHUNK = 1 << 20


class FlatOptimizer:
    """Steps along rows [D] that share one gradient g: that of row i is ``c_i g``, with c_i in `.coefficients`.

    The rows are cut into chunks, each with an optimizer of its own, so that scaled gradients need no memory to speak
    of; ``chunk=None`` gives whole rows, for optimizers that look at more than single entries. A step overwrites the
    gradient. Entries in the ranges `.untouched` stay as they are and so does their state, as PyTorch's optimizers do
    with parameters whose ``.grad`` is None.
    """

    def __init__(
        self, make: OptimizerFactory, rows: Sequence[Tensor], gradient: Tensor, chunk: int | None = CHUNK
    ) -> None:
        spans = list(_spans(len(gradient), chunk))
        longest = max(span.stop - span.start for span in spans)
        scratch = torch.empty(len(rows) - 1, longest, dtype=gradient.dtype, device=gradient.device)
        self._parts = [_Part.of(make, rows, gradient, scratch, span) for span in spans]
        self.coefficients: Sequence[float] = [1.0] * len(rows)
        self.untouched: Sequence[slice] = ()

    @property
    def first(self) -> Optimizer:
        """The optimizer of the first range; its settings are those of all."""
        return self._parts[0].optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The settings of every chunk's optimizer, its learning rate among them."""
        return [group for part in self._parts for group in part.optimizer.param_groups]

    def step(self) -> None:
        """One step of every row."""
        for part in self._parts:
            part.step(self.coefficients, self.untouched)

    def tensors(self) -> dict[str, Tensor]:
        """The state by row and entry, as ``optimizer.0.momentum_buffer``: vectors [D], and numbers such as steps."""
        parts = [optimizer_tensors(part.optimizer) for part in self._parts]
        found = {name: [part[name] for part in parts] for name in parts[0]}
        return {name: torch.cat(values) if values[0].ndim else values[0] for name, values in found.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put `tensors()` back."""
        for part in self._parts:
            own = {name: value[part.span] if value.ndim else value for name, value in tensors.items()}
            load_optimizer(part.optimizer, own)


def _spans(size: int, chunk: int | None) -> Iterator[slice]:
    # What does not fill a vector register goes by itself: the kernels differ there in the last bit.
    even = size if chunk is None else size - size % REGISTER
    for start in range(0, even, chunk or size):
        yield slice(start, min(start + (chunk or size), even))
    if even < size:
        yield slice(even, size)


@dataclass(frozen=True)
class _Part:
    """A range of all rows, with its optimizer."""

    span: slice
    optimizer: Optimizer
    parameters: list[nn.Parameter]
    gradients: list[Tensor]

    @classmethod
    def of(
        cls, make: OptimizerFactory, rows: Sequence[Tensor], gradient: Tensor, scratch: Tensor, span: slice
    ) -> "_Part":
        parameters = [nn.Parameter(row[span]) for row in rows]
        # The last row's gradient is scaled where it lies: nothing needs it afterwards.
        gradients = [*scratch[:, : span.stop - span.start], gradient[span]]
        return cls(span, make(parameters), parameters, gradients)

    def step(self, coefficients: Sequence[float], untouched: Sequence[slice]) -> None:
        whole = self.gradients[-1]
        for parameter, c, gradient in zip(self.parameters, coefficients, self.gradients, strict=True):
            parameter.grad = whole if gradient is whole and c == 1 else torch.mul(whole, c, out=gradient)
        with self._left_alone(untouched):
            self.optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None

    @contextmanager
    def _left_alone(self, spans: Sequence[slice]) -> Iterator[None]:
        inside = [slice(max(span.start, self.span.start), min(span.stop, self.span.stop)) for span in spans]
        own = [slice(s.start - self.span.start, s.stop - self.span.start) for s in inside if s.start < s.stop]
        before = {key: value.clone() for key, value in self._entries(own)}
        yield
        for key, value in self._entries(own):
            value.copy_(before[key]) if key in before else value.zero_()

    def _entries(self, spans: Sequence[slice]) -> Iterator[tuple[tuple[int, str, int], Tensor]]:
        """Weights and state in ranges of this part, by row, name and number of the range."""
        for row, parameter in enumerate(self.parameters if spans else ()):
            state = self.optimizer.state.get(parameter, {})
            alike = {name: value for name, value in state.items() if getattr(value, "shape", None) == parameter.shape}
            for name, value in {"": parameter.data, **alike}.items():
                for number, span in enumerate(spans):
                    yield (row, name, number), value[span]

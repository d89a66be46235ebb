"""Which axes of which parameters and buffers must be permuted alike, found by watching one forward pass."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from closerlook.alignment.axes import TraceError, fix, fixed, fresh, is_fixed
from closerlook.alignment.operations import RULES, SUMS, Call, Rule, pointwise
from closerlook.alignment.shapes import Axes
from closerlook.batches import tensors_in
from closerlook.weights import named, named_modules

_ALIKE = ("zeros", "ones", "full", "empty", "empty_strided", "scalar_tensor")  # constants with all entries alike


@dataclass(frozen=True)
class Read:
    """Where a layer reads units: the number of its product in a forward pass, which argument, and its axes."""

    product: int
    argument: str
    dim: int
    axes: Axes


class Trace(TorchDispatchMode):
    """Follows units through a forward pass, operation by operation, below all Python code of the model.

    `state` are the axes of parameters and buffers by name; `layers` those of the tensors that every module returned, by
    its name, the number of the call and that of the tensor; `reads` where units are read; `inside` the modules that are
    running; `used` the tensors that some operation took, by id.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        found = named(model)
        self.state: dict[str, Axes] = {}
        self.used: set[int] = set()
        self.layers: dict[tuple[str, int, int], Axes] = {}
        self.reads: list[Read] = []
        self.inside: list[str] = []
        self._products = 0
        self._known: Any = WeakTensorKeyDictionary()
        self._weights: Any = WeakTensorKeyDictionary()  # what depends on no data
        for name, value in (*found.parameters.items(), *found.buffers.items()):
            moves = value.is_floating_point() and (name in found.parameters or name in found.persistent)
            axes = self._known.setdefault(value, tuple(fresh(size, fixed=not moves) for size in value.shape))
            self._weights[value] = True
            if moves:
                self.state[name] = axes
        self._ids = {name: id(value) for name, value in (*found.parameters.items(), *found.buffers.items())}

    def axes(self, tensor: Tensor) -> Axes:
        """Axes of a tensor; of one that comes from outside all are in their order."""
        if tensor not in self._known:
            self._known[tensor] = tuple(map(fixed, tensor.shape))
        found: Axes = self._known[tensor]
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = arguments(func, args, kwargs or {})
        tensors = tensors_in(list(given.values()))
        for tensor in tensors:
            self.axes(tensor)
            self.used.add(id(tensor))
        name = name_of(func)
        strides = tensors[0].stride() if name == "as_strided" else ()
        out = func(*args, **(kwargs or {}))
        outputs = tensors_in(out)
        shapes = tuple(tuple(tensor.shape) for tensor in outputs)
        try:
            self._note(func, Call(name, given, self.axes, shapes, strides), tensors, outputs)
        except TraceError as error:
            where = self.inside[-1] if self.inside and self.inside[-1] else "the model itself"
            raise TraceError(f"{where} calls {func}, through which hidden units cannot be followed: {error}") from None
        return out

    def _note(self, func: Any, call: Call, tensors: list[Tensor], outputs: list[Tensor]) -> None:
        if call.name in SUMS:
            self._read(call)
        found = self._outcome(func, call, tensors)
        weights = bool(tensors) and all(tensor in self._weights for tensor in tensors)
        for number, tensor in enumerate(outputs):
            axes = found[min(number, len(found) - 1)] if found else tuple(map(fixed, tensor.shape))
            self._known[tensor] = axes
            if weights:
                self._weights[tensor] = True

    def _outcome(self, func: Any, call: Call, tensors: list[Tensor]) -> list[Axes]:
        if call.name.removeprefix("new_").removesuffix("_like") in _ALIKE:
            return [tuple(map(fresh, shape)) for shape in call.shapes]
        if all(is_fixed(axis) for tensor in tensors for axis in self.axes(tensor)):
            return []
        rule: Rule | None = pointwise if torch.Tag.pointwise in func.tags else RULES.get(call.name)
        if rule is None:
            raise TraceError("there is no rule for it")
        return list(rule(call))

    def _read(self, call: Call) -> None:
        for argument, dim in SUMS[call.name]:
            tensor = call.given[argument]
            if tensor not in self._weights:
                self.reads.append(Read(self._products, argument, dim, self.axes(tensor)))
        self._products += 1

    @contextmanager
    def modules(self, model: nn.Module) -> Iterator[None]:
        """Note which module is running and what each returns; what the model itself returns stays in its order."""
        calls: dict[str, int] = {}
        handles = []

        def leave(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
            self.inside.pop()
            calls[name] = calls.get(name, 0) + 1
            for number, tensor in enumerate(tensors_in(output)):
                self.layers[name, calls[name], number] = self.axes(tensor)
                for axis in self.axes(tensor) if name == "" else ():
                    fix(axis)

        try:
            for name, module in named_modules(model):
                handles.append(module.register_forward_pre_hook(partial(_enter, self.inside, name)))
                handles.append(module.register_forward_hook(partial(leave, name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def leave_unused(self) -> None:
        """Parameters that the pass did not use stay as they are."""
        for name, axes in self.state.items():
            if self._ids[name] not in self.used:
                for axis in axes:
                    fix(axis)


def _enter(inside: list[str], name: str, module: nn.Module, inputs: Any) -> None:
    inside.append(name)


def name_of(func: Any) -> str:
    """Name of an operation without its overload; that of ``relu_`` is ``relu``."""
    name: str = func._schema.name.removeprefix("aten::")
    return name if name.startswith("_") and name.endswith("__") else name.removesuffix("_")


def arguments(func: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, those that were left out with their defaults."""
    schema = func._schema.arguments
    defaults = {each.name: each.default_value for each in schema if each.has_default_value()}
    return {**defaults, **dict(zip((each.name for each in schema), args, strict=False)), **kwargs}

"""Hooks that cannot lie: every call of a module is told, in order, and no hook is left behind."""

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from closerlook.activations.names import ROOT, Layer, Pattern
from closerlook.activations.outputs import tensor_in
from closerlook.errors import LayerError
from closerlook.weights import named_modules

Told = Callable[[str, nn.Module, Any, Any], None]  # name, module, inputs, output


@contextmanager
def listening(model: nn.Module, told: Told, names: Collection[str] | None = None) -> Iterator[None]:
    """Call `told` after every call of the modules (of those in `names`); the hooks go, also after an exception."""
    handles = []
    try:
        for name, module in named_modules(model):
            shown = name or ROOT
            if names is None or shown in names:
                handles.append(module.register_forward_hook(partial(_tell, told, shown)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tell(told: Told, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    told(name, module, inputs, output)


class Listing:
    """All layers of a model, as one batch of `n` examples calls them."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = [Pattern.read(pattern) for pattern in patterns]
        self._calls: Counter[str] = Counter()
        self._layers: list[Layer] = []
        self._makers: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}

    def told(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Take note of a call."""
        self._calls[name] += 1
        call = self._calls[name]
        wanted = (pattern.output for pattern in self._patterns if pattern.fits(name, call))
        for place in dict.fromkeys(["", *wanted]):
            tensor, problem = _found(output, place)
            layer = Layer(
                name, name, call, 0, place, type(module).__name__, () if tensor is None else tuple(tensor.shape),
                None if tensor is None else tensor.dtype, sum(value.numel() for value in module.parameters()),
                self._maker(tensor, module, inputs), problem,
            )  # fmt: skip
            self._layers.append(layer)
            if tensor is not None and layer.same_as is None:
                self._makers[id(tensor)] = (weakref.ref(tensor), tensor._version, f"{name}#{call}:{place}")

    def layers(self, n: int) -> tuple[Layer, ...]:
        """The layers in the order of their calls, under their final names."""
        names = {f"{each.module}#{each.call}:{each.output}": self._name(each) for each in self._layers}
        return tuple(
            replace(
                each, name=self._name(each), calls=self._calls[each.module], problem=each.problem or _misfit(each, n),
                same_as=None if each.same_as is None else names[each.same_as],
            )
            for each in self._layers
        )  # fmt: skip

    def _name(self, layer: Layer) -> str:
        call = f"#{layer.call}" if self._calls[layer.module] > 1 else ""
        return layer.module + call + (f":{layer.output}" if layer.output else "")

    def _maker(self, tensor: Tensor | None, module: nn.Module, inputs: Any) -> str | None:
        """The layer that made this very tensor, unchanged since; for a layer that only reshapes, its input."""
        handed_on = tensor_in(inputs) if isinstance(module, nn.Flatten | nn.Unflatten) else tensor
        reference, version, name = self._makers.get(id(handed_on), (lambda: None, 0, ""))
        made = handed_on is not None and reference() is handed_on and handed_on._version == version
        return name if made else None


def _found(output: Any, place: str) -> tuple[Tensor | None, str | None]:
    """The tensor, or why there is none."""
    try:
        tensor = tensor_in(output, place)
    except LayerError as error:
        return None, str(error)
    if tensor is None:
        return None, "it returns no tensor"
    real = tensor.is_floating_point()
    return tensor, None if real else f"it returns {str(tensor.dtype).removeprefix('torch.')}, no real numbers"


def _misfit(layer: Layer, n: int) -> str | None:
    if layer.shape[:1] == (n,):
        return None
    return f"the first dimension of its output {layer.shape} is not the {n} examples of the batch"

"""Rows of the chosen layers of a model, batch by batch; the model comes back as it was."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.activations.forward import Forward
from closerlook.activations.hooks import Listing, listening
from closerlook.activations.names import Layer, check_patterns, choose
from closerlook.activations.outputs import tensor_in
from closerlook.activations.rows import Handling
from closerlook.batches import BatchFn, feed_for
from closerlook.errors import LayerError
from closerlook.evaluation import modes_kept
from closerlook.views import buffers_kept


@dataclass
class Reader:
    """Reads the layers that `patterns` choose; which these are is known from the first batch on."""

    model: nn.Module
    forward: Forward
    patterns: Sequence[str] = ("*",)
    handling: Handling = field(default_factory=Handling)
    layers: tuple[Layer, ...] = ()
    n: int = 0  # examples of the batch that was read last

    def every(self, batch: Any) -> tuple[Layer, ...]:
        """Every layer that a forward pass calls."""
        listing = Listing(self.patterns)
        with listening(self.model, listing.told):
            n = self.forward(self.model, batch)
        return listing.layers(n)

    def start(self, batch: Any) -> tuple[Layer, ...]:
        """Choose the layers by a forward pass of the first batch.

        Raises
        ------
        LayerError
            A pattern matches no layer, or one whose output cannot be compared; or the same batch gives other outputs
            the second time.
        """
        self.layers = choose(self.every(batch), self.patterns)
        first, second = self.rows(batch), self.rows(batch)
        for name, rows in first.items():
            # Kernels of an accelerator may sum in another order from call to call.
            slack = 0.0 if rows.device.type == "cpu" else 1e-3 * float(rows.abs().max())
            if not torch.allclose(rows, second[name], rtol=0, atol=slack, equal_nan=True):
                raise LayerError(
                    f"layer {name} gives other values for the same batch in eval mode, so not even a copy of this "
                    "model would be like it: dropout with training=True, or a random draw in forward; make it depend "
                    "on self.training"
                )
        return self.layers

    def rows(self, batch: Any) -> dict[str, Tensor]:
        """Rows of every chosen layer, by its name.

        Raises
        ------
        LayerError
            A layer was called another number of times than for the first batch, or its output has another form.
        """
        caught = _Catch(self.layers, self.handling)
        with listening(self.model, caught.told, {layer.module for layer in self.layers}):
            self.n = self.forward(self.model, batch)
        return {layer.name: caught.checked(layer, self.n) for layer in self.layers}


class _Catch:
    def __init__(self, layers: Sequence[Layer], handling: Handling) -> None:
        self._layers, self._handling = layers, handling
        self._calls: Counter[str] = Counter()
        self._rows: dict[str, tuple[Tensor, torch.Size]] = {}

    def told(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self._calls[name] += 1
        for layer in self._layers:
            if (layer.module, layer.call) == (name, self._calls[name]):
                tensor = tensor_in(output, layer.output)
                if tensor is not None:
                    self._rows[layer.name] = self._handling.rows(tensor), tensor.shape

    def checked(self, layer: Layer, n: int) -> Tensor:
        rows, shape = self._rows.get(layer.name, (None, torch.Size()))
        if rows is None or self._calls[layer.module] != layer.calls:
            raise LayerError(
                f"layer {layer.module} was called {self._calls[layer.module]} times for this batch and {layer.calls} "
                "times for the first one; its calls cannot be matched from batch to batch"
            )
        if shape[0] != n or self._handling.form(shape) != self._handling.form(layer.shape):
            raise LayerError(
                f"layer {layer.name} gave {tuple(shape)} for {n} examples and {layer.shape} for the first batch; make "
                "all batches of one shape (pad, resize), or choose a handling that does not depend on it, such as mean"
            )
        return rows


@contextmanager
def reading(
    model: nn.Module,
    patterns: Sequence[str] = ("*",),
    handling: Handling | None = None,
    *,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> Iterator[Reader]:
    """A reader on the model in eval mode; modes and buffers come back as they were, also after an exception."""
    check_patterns(patterns)
    model, feed = feed_for(_bare(model), batch_fn, device)
    with modes_kept(model), buffers_kept(model):
        model.eval()
        yield Reader(model, Forward(feed.device, batch_fn), patterns, handling or Handling())


def _bare(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel or torch.compile's wrapper."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _bare(model.module)
    inner = model._modules.get("_orig_mod")
    return model if inner is None else _bare(inner)

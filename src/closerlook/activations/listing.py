"""Which layers a model has, and what their units would be."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch
from torch import nn

from closerlook.activations.names import Layer
from closerlook.activations.reading import reading
from closerlook.activations.rows import Conv, Handling
from closerlook.batches import BatchFn, Loader, batches_of


def layers(
    model: nn.Module,
    loader: Loader,
    patterns: Sequence[str] = ("*",),
    *,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
) -> tuple[Layer, ...]:
    """Every layer that a forward pass calls, in the order of the calls, by the names that patterns match.

    Read from the loader's first batch in eval mode; the model stays as it was. `patterns` leave nothing out; outputs
    that they choose (``"lstm:1"``) are listed too.

    Examples
    --------
    >>> relu = nn.ReLU()
    >>> [layer.name for layer in layers(nn.Sequential(nn.Linear(4, 3), relu, nn.Linear(3, 2)), [torch.ones(6, 4)])]
    ['0', '1', '2', '(model)']
    """
    with reading(model, patterns, batch_fn=batch_fn, device=device) as reader, closing(batches_of(loader)) as batches:
        return reader.every(next(batches))


def units_of(layer: Layer) -> dict[str, Any]:
    """Units by the name of the handling; a handling of places says how many of them there are.

    Examples
    --------
    >>> units_of(Layer("conv", "conv", 1, 1, "", "Conv2d", (8, 16, 6, 6), torch.float32, 448))
    {'mean': 16, 'positions': (16, 36), 'flatten': 576, 'spectral': (16, 24)}
    """
    shape = layer.shape
    if layer.problem is not None:
        return {}
    if len(shape) < 3:
        return {"as it is": Handling().units(shape)}
    if len(shape) == 3:
        each = {"mean": shape[2], "positions": (shape[2], shape[1]), "first": shape[2]}
        return {**each, "flatten": Handling(tokens="flatten").units(shape)}
    names: tuple[Conv, ...] = ("mean", "positions", "flatten")
    found: dict[str, Any] = {name: Handling(name).units(shape) for name in names}
    found["positions"] = (shape[1], torch.Size(Handling("positions").positions(shape)).numel())
    if len(shape) == 4:
        found["spectral"] = (shape[1], shape[2] * (shape[3] // 2 + 1))  # half of the spectrum of real maps
    return found

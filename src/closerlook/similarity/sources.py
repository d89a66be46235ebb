"""Where the rows of a comparison come from: networks that see the same batches, or what was read of them before."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from closerlook.activations import Activations, Handling, Layer, choose, reading
from closerlook.batches import BatchFn, Loader, batches_of
from closerlook.errors import MismatchError

Rows = dict[str, Tensor]
Layers = list[tuple[Layer, ...]]  # of A, of B and, where asked for, of B untrained
Batch = tuple[Layers, list[Rows], int]


def from_models(
    models: Sequence[nn.Module],
    patterns: Sequence[Sequence[str]],
    loader: Loader,
    handling: Handling,
    batch_fn: BatchFn | None,
    device: str | torch.device | None,
) -> Generator[Batch]:
    """Layers and rows of every model, batch by batch: each batch is one object that all models are shown."""
    with ExitStack() as stack:
        readers = [
            stack.enter_context(reading(model, chosen, handling, batch_fn=batch_fn, device=device))
            for model, chosen in zip(models, patterns, strict=False)
        ]
        for number, batch in enumerate(batches_of(loader)):
            if number == 0:
                for reader in readers:
                    reader.start(batch)
            rows = [reader.rows(batch) for reader in readers]
            yield [reader.layers for reader in readers], rows, readers[0].n


def from_stored(
    sides: tuple[Activations, Activations], patterns: tuple[Sequence[str], Sequence[str]]
) -> Generator[Batch]:
    """All rows at once.

    Raises
    ------
    MismatchError
        The two sides were read on other batches, or with another handling of maps and tokens.
    """
    a, b = sides
    if a.data != b.data or a.handling != b.handling:
        raise MismatchError(
            "the activations were read on other batches or with another handling; read both on one loader in a fixed "
            "order, with the same conv and tokens"
        )
    layers = [choose(side.layers, chosen) for side, chosen in zip(sides, patterns, strict=True)]
    rows = [{layer.name: side.rows[layer.name] for layer in chosen} for side, chosen in zip(sides, layers, strict=True)]
    yield layers, rows, a.n

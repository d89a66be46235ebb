"""The memory format in which a network computes: channels_last where the network can bear it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from closerlook.batches import Feed, Loader, check_loader, generators_kept
from closerlook.views import buffers_kept, in_format, modes_kept


def fitting_layout(
    model: nn.Module,
    loader: Loader,
    feed: Feed,
    asked: torch.memory_format = torch.channels_last,
    gradients: bool = False,
) -> torch.memory_format:
    """The memory format asked for, or `torch.contiguous_format` when only that one runs.

    One forward pass on the first batch decides, with its backward pass where `gradients` will be needed: a network
    that says ``x.view(len(x), -1)`` after a convolution fails under `channels_last` alone. The model, its buffers and
    the generators come back as they were. Nothing is tried where weights of 4 or 5 axes are missing.

    Raises
    ------
    Exception
        What the network or the batch function raises in the contiguous format too, as it is.

    Examples
    --------
    >>> from closerlook.batches import Feed
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4))
    >>> fitting_layout(net, [(torch.ones(2, 1, 4, 4), torch.tensor([0, 3]))], Feed(torch.device("cpu")))
    torch.channels_last
    """
    check_loader(loader)
    if asked in (torch.contiguous_format, torch.preserve_format) or not _maps(model):
        return asked
    with generators_kept(loader):
        batch = next(iter(loader), None)
        if batch is None or _failure(model, batch, feed, asked, gradients) is None:
            return asked  # an empty loader is refused by whoever reads it
        failure = _failure(model, batch, feed, torch.contiguous_format, gradients)
    if failure is not None:
        raise failure
    return torch.contiguous_format


def in_layout(feed: Feed, memory_format: torch.memory_format) -> Feed:
    """The feed for a network whose weights are in a memory format: convolutions follow their input's as well."""
    return replace(feed, contiguous=memory_format == torch.contiguous_format)


def lay_out(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Put a model's weights of 4 and 5 axes into a memory format, for good.

    Examples
    --------
    >>> layer = nn.Conv2d(2, 3, 3)
    >>> lay_out(layer, torch.channels_last)
    >>> layer.weight.stride()
    (18, 1, 6, 2)
    """
    for value in _maps(model):
        value.data = in_format(value.data, memory_format)


def _failure(
    model: nn.Module, batch: Any, feed: Feed, memory_format: torch.memory_format, gradients: bool
) -> RuntimeError | None:
    """What PyTorch says about one pass in a memory format. Errors of other types are not about layouts."""
    with _laid_out(model, memory_format), buffers_kept(model), modes_kept(model), torch.set_grad_enabled(gradients):
        model.train(gradients)
        trained = [value for value in model.parameters() if value.requires_grad]
        try:
            loss = in_layout(feed, memory_format)(model, batch).loss.mean()
            if gradients and trained:
                torch.autograd.grad(loss, trained, allow_unused=True)
        except RuntimeError as error:
            return error
    return None


@contextmanager
def _laid_out(model: nn.Module, memory_format: torch.memory_format) -> Iterator[None]:
    # Every weight, not those of 4 and 5 axes alone: what the batch function does to a model is anybody's guess.
    own = [(value, value.data) for value in model.parameters()]
    try:
        lay_out(model, memory_format)
        yield
    finally:
        for value, data in own:
            value.data = data


def _maps(model: nn.Module) -> list[nn.Parameter]:
    return [value for value in model.parameters() if value.ndim in (4, 5)]

"""Iterating a loader again and again, leaving every generator as it was."""

import random
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from closerlook.errors import LoaderError

Loader = Iterable[Any]


def check_loader(loader: Loader, name: str = "loader") -> None:
    """Refuse what cannot be iterated twice.

    Raises
    ------
    LoaderError
        A generator or another one-shot iterator, or no iterable of batches at all.
    """
    if isinstance(loader, Mapping | Tensor | str | bytes) or not isinstance(loader, Iterable):
        wrap = "; wrap it in a DataLoader" if hasattr(loader, "__getitem__") and hasattr(loader, "__len__") else ""
        raise LoaderError(f"{name} is a {type(loader).__name__}, not an iterable of batches{wrap}")
    if isinstance(loader, Iterator):
        raise LoaderError(f"{name} is a one-shot iterator and would be empty the second time; pass list({name})")


def batches_of(loader: Loader, name: str = "loader") -> Generator[Any]:
    """Iterate a loader once, leaving the global generators and the loader's own as they were.

    Raises
    ------
    LoaderError
        A one-shot iterator, or no batch at all.
    """
    check_loader(loader, name)
    with generators_kept(loader):
        count = 0
        for count, batch in enumerate(loader, 1):  # noqa: B007
            yield batch
    if count == 0:
        raise LoaderError(f"{name} gave no batch; check its data, its batch size and drop_last")


@contextmanager
def generators_kept(loader: Loader | None = None) -> Iterator[None]:
    """Put the global generators (PyTorch, numpy, random), the loader's own and its epoch back afterwards.

    Iterating any DataLoader draws from the global generator, an unshuffled one too; augmentations draw from
    numpy's and Python's.
    """
    own = own_generators(loader)
    states = [source.get_state() for source in own]
    epoch = getattr(loader, "epoch", None) if hasattr(loader, "set_epoch") else None
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    of_numpy, of_python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)
            for source, state in zip(own, states, strict=True):
                source.set_state(state)
            if epoch is not None:
                loader.set_epoch(epoch)  # type: ignore[union-attr]


def seed_all(seed: int, loader: Loader | None = None) -> None:
    """Seed every generator that `generators_kept` puts back."""
    seed_torch(seed)
    for source in own_generators(loader):
        source.manual_seed(seed)
    np.random.seed(seed % 2**32)  # it takes no more
    random.seed(seed)


def seed_torch(seed: int) -> None:
    """Seed PyTorch's global generators: `torch.manual_seed` where no accelerator waits for its first use.

    That function formats the caller's stack for every kind of accelerator that is not in use yet, which takes longer
    than a small network's forward pass; and the seed it leaves there is put back by nothing.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def own_generators(loader: Loader | None) -> list[torch.Generator]:
    """The generators that a DataLoader and its samplers were given."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = {id(own): own for own in (getattr(owner, "generator", None) for owner in owners)}
    return [own for own in found.values() if isinstance(own, torch.Generator)]

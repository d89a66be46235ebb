"""The batch contract: the only place where a model and a batch meet.

A loader is anything that can be iterated again and again (a DataLoader, a list, our in-memory loader).
``batch_fn(model, batch) -> Output`` turns a batch into per-example losses.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.errors import LoaderError, UsageError

Loader = Iterable[Any]


@dataclass(frozen=True)
class Output:
    """What a batch gives: loss per example [n] in nats, the model's outputs, hits per example [n] or None."""

    loss: Tensor
    outputs: Any
    correct: Tensor | None = None


BatchFn = Callable[[nn.Module, Any], Output]


def classification(model: nn.Module, batch: Any) -> Output:
    """Cross-entropy in nats and hits of a batch ``(x, y)``, or of a dict with the targets under y, labels or targets.

    Examples
    --------
    >>> classification(nn.Identity(), (torch.zeros(2, 4), torch.tensor([0, 1]))).loss
    tensor([1.3863, 1.3863])
    """
    inputs, targets = inputs_and_targets(batch)
    outputs = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise LoaderError(
            f"the default batch function needs logits [n, classes]; the model returned "
            f"{tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__}; pass batch_fn"
        )
    loss = nn.functional.cross_entropy(
        logits.float() if logits.dtype != torch.float64 else logits, targets, reduction="none"
    )
    return Output(loss, logits, logits.argmax(1) == targets)


def inputs_and_targets(batch: Any) -> tuple[Any, Tensor]:
    """The two parts of a batch ``(x, y)``, or of a dict with the targets under y, labels or targets."""
    if isinstance(batch, Mapping):
        for key in ("y", "labels", "targets"):
            if key in batch:
                rest = {name: value for name, value in batch.items() if name != key}
                return (rest["x"] if set(rest) == {"x"} else rest), batch[key]
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    raise LoaderError("the default batch function takes (x, y) or a dict with y, labels or targets; pass batch_fn")


@dataclass(frozen=True)
class Feed:
    """How batches reach a model: its device, its autocast type, its batch function."""

    device: torch.device
    batch_fn: BatchFn = classification
    autocast: torch.dtype | None = None

    def __call__(self, model: nn.Module, batch: Any) -> Output:
        """Output of one batch; autocast is entered afresh, so no stale low-precision weights are reused."""
        # A caller's own autocast region would impose its type, and its cache would keep weights of earlier points.
        precision = torch.autocast(
            self.device.type, self.autocast, enabled=self.autocast is not None, cache_enabled=False
        )
        with precision:
            output = self.batch_fn(model, to_device(batch, self.device))
        if output.loss.ndim != 1:
            raise LoaderError(f"batch_fn must return one loss per example [n], not {tuple(output.loss.shape)}")
        return output


def feed_for(
    model: nn.Module,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> tuple[nn.Module, Feed]:
    """The model on `device` (a copy when it lies elsewhere) and the feed for it."""
    here = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    target = here if device is None else torch.device(device)
    if target.type != here.type or (target.index is not None and target.index != here.index):
        model = copy.deepcopy(model).to(target)
    return model, Feed(target, batch_fn or classification, autocast)


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor on `device`; containers keep their type."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=device.type != "cpu")
    if isinstance(batch, Mapping):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        items = [to_device(value, device) for value in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    return batch


def check_loader(loader: Loader, name: str = "loader") -> None:
    """Refuse what cannot be iterated twice.

    Raises
    ------
    LoaderError
        A generator or another one-shot iterator, or not iterable at all.
    """
    if not isinstance(loader, Iterable):
        raise LoaderError(f"{name} is a {type(loader).__name__}, not an iterable of batches")
    if isinstance(loader, Iterator):
        raise LoaderError(f"{name} is a one-shot iterator and would be empty the second time; pass list({name})")


def batches_of(loader: Loader, name: str = "loader") -> Iterator[Any]:
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
    """Put PyTorch's global generators, the loader's own and its epoch back to their present state afterwards.

    Iterating any DataLoader draws from the global generator, an unshuffled one too.
    """
    own = own_generators(loader)
    states = [source.get_state() for source in own]
    epoch = getattr(loader, "epoch", None) if hasattr(loader, "set_epoch") else None
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for source, state in zip(own, states, strict=True):
                source.set_state(state)
            if epoch is not None:
                loader.set_epoch(epoch)  # type: ignore[union-attr]


def own_generators(loader: Loader | None) -> list[torch.Generator]:
    """The generators that a DataLoader and its samplers were given."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = {id(own): own for own in (getattr(owner, "generator", None) for owner in owners)}
    return [own for own in found.values() if isinstance(own, torch.Generator)]


def autocast_dtype(name: str) -> torch.dtype | None:
    """The autocast type of a precision name: ``"fp32"`` none, ``"bf16"`` bfloat16."""
    try:
        return {"fp32": None, "bf16": torch.bfloat16}[name]
    except KeyError:
        raise UsageError(f"unknown precision {name!r}; choose fp32 or bf16") from None

"""What probes are to predict, read from the same batches as the layers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.activations.forward import inputs_of
from closerlook.agreement.models import ready
from closerlook.batches import Loader, Output, batches_of, check_loader, inputs_and_targets
from closerlook.errors import LoaderError, UsageError

LABELS = "labels"


class Noted:
    """A loader whose targets are noted as its batches pass, so that both come from one pass in one order."""

    def __init__(self, loader: Loader, target: "Target", name: str) -> None:
        check_loader(loader, name)
        self._loader, self._target, self._name = loader, target, name
        self._noted: list[Tensor] = []

    def __iter__(self) -> Iterator[Any]:
        self._noted = []
        for batch in batches_of(self._loader, self._name):
            self._noted.append(self._target(batch))
            yield batch

    @property
    def targets(self) -> Tensor:
        """Of all examples in their order, after a pass."""
        return torch.cat(self._noted)


class Target:
    """Targets of a batch: class numbers [n], or numbers [n, d] in float64."""

    def __init__(self, reader: Any = None) -> None:
        self._reader = reader

    def __call__(self, batch: Any) -> Tensor:
        """The targets of a batch.

        Raises
        ------
        LoaderError, UsageError
            The batch has no labels, or they are no class numbers [n] and no real numbers [n] or [n, d].
        """
        found = _labels(batch) if self._reader is None else self._reader(batch).outputs
        if found.ndim > 2 or (found.ndim == 2 and not found.is_floating_point()):
            kind = f"{tuple(found.shape)} {found.dtype}"
            raise UsageError(
                f"a probe predicts class numbers [n] or real numbers [n] or [n, d] per example, not {kind}"
            )
        if not found.is_floating_point():
            return found.long().cpu()
        return found.detach().double().reshape(len(found), -1).cpu()


@contextmanager
def reading(target: str | nn.Module, device: str | torch.device | None) -> Iterator[Target]:
    """Labels, or what a teacher answers in eval mode; it comes back as it was."""
    if isinstance(target, nn.Module):
        with ready(target, _answers, device, None) as reader:
            yield Target(reader)
    elif target == LABELS:
        yield Target()
    else:
        raise UsageError(f"the target of probes is 'labels' or a teacher (an nn.Module), not {target!r}")


def _labels(batch: Any) -> Tensor:
    try:
        labels = inputs_and_targets(batch)[1]
    except LoaderError as error:
        raise LoaderError(
            "labels are y of a batch (x, y), or y, labels or targets of a dict; here is neither"
        ) from error
    if not isinstance(labels, Tensor):
        raise LoaderError(f"labels are a tensor [n], not a {type(labels).__name__}")
    return labels


def _answers(model: nn.Module, batch: Any) -> Output:
    inputs = inputs_of(batch)
    outputs = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(logits, Tensor):
        raise UsageError(f"the teacher returns a {type(logits).__name__}; wrap it so that it returns its logits")
    return Output(torch.zeros(len(logits)), logits)

"""What a batch function returns, the default one, and the way of a batch to a model."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.batches.structure import lengths, to_device
from closerlook.errors import LoaderError, UsageError


@dataclass(frozen=True)
class Output:
    """What a batch of n examples gives.

    Parameters
    ----------
    loss
        One loss per example [n], in nats for likelihoods: a mean over tokens, pixels or coordinates where an
        example has many.
    outputs
        The model's outputs, [n, ...] where something compares them.
    correct
        Per example [n]: bool for a hit, a float in [0, 1] for a share of hits (tokens, pixels), or None where
        there is no accuracy (regression).

    Examples
    --------
    A batch function for segmentation, logits [n, c, h, w] and targets [n, h, w]:

    >>> def segmentation(model, batch):
    ...     logits, targets = model(batch["image"]), batch["mask"]
    ...     loss = nn.functional.cross_entropy(logits, targets, reduction="none").mean((1, 2))
    ...     return Output(loss, logits, (logits.argmax(1) == targets).double().mean((1, 2)))
    >>> batch = {"image": torch.zeros(2, 3, 4, 4), "mask": torch.zeros(2, 4, 4, dtype=torch.long)}
    >>> segmentation(nn.Identity(), batch).correct
    tensor([1., 1.], dtype=torch.float64)
    """

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
    if not isinstance(targets, Tensor) or targets.shape != logits.shape[:1] or targets.is_floating_point():
        found = f"{tuple(targets.shape)} {targets.dtype}" if isinstance(targets, Tensor) else type(targets).__name__
        raise LoaderError(f"the default batch function needs class numbers [n] as targets, not {found}; pass batch_fn")
    targets = targets.long()
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
    """How batches reach a model: its device, its batch function, its autocast type, its layout.

    Images that lie channels_last would make a network compute so; `contiguous` copies them into the other layout.
    """

    device: torch.device
    batch_fn: BatchFn = classification
    autocast: torch.dtype | None = None
    contiguous: bool = False

    def __call__(self, model: nn.Module, batch: Any) -> Output:
        """Output of one batch; autocast is entered afresh, so no stale low-precision weights are reused.

        Raises
        ------
        LoaderError
            Not one loss (and one hit in [0, 1], if any) per example, or a loss without a gradient where one is needed.
        """
        # A caller's own autocast region would impose its type, and its cache would keep weights of earlier points.
        precision = torch.autocast(
            self.device.type, self.autocast, enabled=self.autocast is not None, cache_enabled=False
        )
        batch = to_device(batch, self.device, self.contiguous)
        with precision:
            output = self.batch_fn(model, batch)
        _check(output, lengths(batch))
        if (
            torch.is_grad_enabled()
            and not output.loss.requires_grad
            and any(w.requires_grad for w in model.parameters())
        ):
            raise LoaderError("the loss has no gradient: batch_fn must not detach it, nor compute it under no_grad")
        return output


def _check(output: Any, known: set[int]) -> None:
    if not isinstance(output, Output):
        raise LoaderError(f"batch_fn must return closerlook.Output(loss, outputs), not a {type(output).__name__}")
    loss, correct = output.loss, output.correct
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        raise LoaderError(f"batch_fn must return losses as a floating tensor [n], not a {_kind(loss)}")
    if loss.ndim != 1:
        raise LoaderError(
            f"batch_fn must return one loss per example [n], not {tuple(loss.shape)}; compute it with "
            "reduction='none' and average over everything but the examples"
        )
    if known and len(loss) not in known:
        raise LoaderError(
            f"batch_fn returned {len(loss)} losses, and nothing in the batch has that length (there is "
            f"{', '.join(map(str, sorted(known)))}); return one loss per example, the mean over its tokens or pixels"
        )
    if correct is not None:
        _check_hits(correct, len(loss))


def _check_hits(correct: Any, n: int) -> None:
    if not isinstance(correct, Tensor) or correct.shape != (n,):
        shape = tuple(correct.shape) if isinstance(correct, Tensor) else type(correct).__name__
        raise LoaderError(f"batch_fn must return one hit per example [{n}] as correct, or None, not {shape}")
    if correct.dtype != torch.bool and not bool(((correct >= 0) & (correct <= 1)).all()):
        raise LoaderError(
            f"batch_fn must return hits, or shares of hits in [0, 1], as correct; here they reach from "
            f"{float(correct.min()):g} to {float(correct.max()):g}; divide by the number of tokens or pixels"
        )


def _kind(value: Any) -> str:
    return f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


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


def autocast_dtype(name: str) -> torch.dtype | None:
    """The autocast type of a precision name: ``"fp32"`` none, ``"bf16"`` bfloat16."""
    try:
        return {"fp32": None, "bf16": torch.bfloat16}[name]
    except KeyError:
        raise UsageError(f"unknown precision {name!r}; choose fp32 or bf16") from None

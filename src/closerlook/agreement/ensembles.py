"""The mean of several models' probabilities beside each of them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.batches import BatchFn, Loader, batches_of, inputs_and_targets
from closerlook.errors import UsageError
from closerlook.evaluation import evaluate


@dataclass(frozen=True)
class Ensemble:
    """Several classifiers and the mean of their probabilities: accuracies in [0, 1]."""

    n: int
    members: tuple[float, ...]
    accuracy: float

    @property
    def gain(self) -> float:
        """Accuracy of the ensemble minus that of its best member."""
        return self.accuracy - max(self.members)

    def to_dict(self) -> dict[str, Any]:
        """All fields and the gain."""
        return {**asdict(self), "members": list(self.members), "gain": self.gain}


def ensemble(
    models: Iterable[nn.Module],
    loader: Loader,
    *,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> Ensemble:
    """Accuracy of the mean of the models' probabilities, beside each member's; batches ``(x, y)`` or dicts.

    Each model is read before the next one is asked for, so a generator holds one at a time.

    Raises
    ------
    UsageError
        There is no model, or a batch function returns no logits [n, classes].

    Examples
    --------
    >>> ensemble([nn.Identity(), nn.Identity()], [(torch.eye(3), torch.arange(3))]).gain
    0.0
    """
    logits = []
    for model in models:
        outputs = evaluate(model, loader, outputs=True, batch_fn=batch_fn, device=device, autocast=autocast).outputs
        if outputs is None or outputs.ndim != 2:
            raise UsageError("an ensemble of classifiers needs a batch function that returns logits [n, classes]")
        logits.append(outputs)
    targets = torch.cat([inputs_and_targets(batch)[1].cpu() for batch in batches_of(loader)])
    return ensemble_logits(logits, targets)


def ensemble_logits(logits: Sequence[Tensor], targets: Tensor) -> Ensemble:
    """`ensemble` from stored logits [n, c] and targets [n]."""
    if not logits:
        raise UsageError("an ensemble needs at least one model")
    mean = torch.stack([member.double().softmax(1) for member in logits]).mean(0)
    accuracy = [float((scores.argmax(1) == targets).double().mean()) for scores in (*logits, mean)]
    return Ensemble(len(targets), tuple(accuracy[:-1]), accuracy[-1])

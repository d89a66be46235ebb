"""Function-space distance of models: where they disagree, how far their predictions are, what an ensemble gains.

Fort et al. 2019 (arXiv 1912.02757) for disagreement; Stanton et al. 2021 (arXiv 2106.05945) for agreement
and divergence between two models.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.batches import BatchFn, Loader, batches_of, inputs_and_targets
from closerlook.errors import UsageError
from closerlook.evaluation import evaluate


@dataclass(frozen=True)
class Agreement:
    """Two classifiers on the same n examples; shares in [0, 1], divergences in nats."""

    n: int
    disagreement: float
    kl_a_b: float
    kl_b_a: float
    error_overlap: float
    accuracy_a: float
    accuracy_b: float

    def to_dict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


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


def agreement(
    model_a: nn.Module,
    model_b: nn.Module,
    loader: Loader,
    *,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> Agreement:
    """Disagreement, KL divergence and shared errors of two classifiers.

    With predicted labels y and probabilities p: disagreement = share of examples with y_a != y_b; KL(a, b) =
    mean of sum_c p_a log(p_a / p_b); error overlap = both wrong / at least one wrong.

    Examples
    --------
    >>> batches = [(torch.eye(3), torch.arange(3))]
    >>> agreement(nn.Identity(), nn.Identity(), batches).disagreement
    0.0
    """
    logits, targets = zip(
        *(_logits_and_hits(model, loader, batch_fn, device, autocast) for model in (model_a, model_b)), strict=True
    )
    return compare_logits(logits[0], logits[1], targets[0], targets[1])


def ensemble(
    models: Sequence[nn.Module],
    loader: Loader,
    *,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> Ensemble:
    """Accuracy of the mean of the models' probabilities, beside each member's; batches ``(x, y)`` or dicts.

    Examples
    --------
    >>> ensemble([nn.Identity(), nn.Identity()], [(torch.eye(3), torch.arange(3))]).gain
    0.0
    """
    logits = [_logits_and_hits(model, loader, batch_fn, device, autocast)[0] for model in models]
    targets = torch.cat([inputs_and_targets(batch)[1].cpu() for batch in batches_of(loader)])
    return ensemble_logits(logits, targets)


def compare_logits(a: Tensor, b: Tensor, correct_a: Tensor, correct_b: Tensor) -> Agreement:
    """`agreement` from stored logits [n, c] and hits [n]."""
    log_a, log_b = a.double().log_softmax(1), b.double().log_softmax(1)
    wrong_a, wrong_b = ~correct_a, ~correct_b
    any_wrong = int((wrong_a | wrong_b).sum())
    return Agreement(
        n=len(a),
        disagreement=float((a.argmax(1) != b.argmax(1)).double().mean()),
        kl_a_b=float((log_a.exp() * (log_a - log_b)).sum(1).mean()),
        kl_b_a=float((log_b.exp() * (log_b - log_a)).sum(1).mean()),
        error_overlap=float((wrong_a & wrong_b).sum()) / any_wrong if any_wrong else 1.0,
        accuracy_a=float(correct_a.double().mean()),
        accuracy_b=float(correct_b.double().mean()),
    )


def ensemble_logits(logits: Sequence[Tensor], targets: Tensor) -> Ensemble:
    """`ensemble` from stored logits [n, c] and targets [n]."""
    if not logits:
        raise UsageError("an ensemble needs at least one model")
    mean = torch.stack([member.double().softmax(1) for member in logits]).mean(0)
    accuracy = [float((scores.argmax(1) == targets).double().mean()) for scores in (*logits, mean)]
    return Ensemble(len(targets), tuple(accuracy[:-1]), accuracy[-1])


def _logits_and_hits(
    model: nn.Module,
    loader: Loader,
    batch_fn: BatchFn | None,
    device: str | torch.device | None,
    autocast: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    result = evaluate(model, loader, outputs=True, batch_fn=batch_fn, device=device, autocast=autocast)
    if result.outputs is None or result.outputs.ndim != 2 or result.correct is None or result.correct.dtype != bool:
        raise UsageError("agreement needs a batch function that returns logits [n, classes] and hits [n] (bool)")
    return result.outputs, torch.from_numpy(result.correct)

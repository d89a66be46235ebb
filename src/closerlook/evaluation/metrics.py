"""Losses and hits per example in eval mode."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from closerlook.batches import BatchFn, Feed, Loader, batches_of, feed_for
from closerlook.errors import LoaderError
from closerlook.views import buffers_kept, modes_kept


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Losses [n] in nats and hits [n] of one model on one loader; the outputs when they were asked for."""

    losses: np.ndarray
    correct: np.ndarray | None
    outputs: Tensor | None = None

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.losses)

    @property
    def loss(self) -> float:
        """Mean loss in nats, summed in float64, without any penalty on the weights."""
        return float(np.mean(self.losses, dtype=np.float64))

    @property
    def accuracy(self) -> float | None:
        """Share of hits in [0, 1]; None when the batch function counts none."""
        return None if self.correct is None else float(np.mean(self.correct, dtype=np.float64))

    @property
    def error(self) -> float | None:
        """1 - accuracy."""
        return None if self.accuracy is None else 1 - self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """The mean metrics and n."""
        return {"n": self.n, "loss": self.loss, "accuracy": self.accuracy, "error": self.error}


def evaluate(
    model: nn.Module,
    loader: Loader,
    *,
    outputs: bool = False,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> Evaluation:
    """Loss and accuracy of a model on a loader, in eval mode; the model comes back as it was.

    Parameters
    ----------
    outputs
        Keep the model's outputs [n, ...] as well.

    Raises
    ------
    LoaderError
        The loader is one-shot or empty.

    Examples
    --------
    >>> evaluate(nn.Identity(), [(torch.zeros(3, 10), torch.zeros(3, dtype=torch.long))]).loss
    2.302585...
    """
    model, feed = feed_for(model, batch_fn, device, autocast)
    with modes_kept(model), buffers_kept(model):
        model.eval()
        return read(model, loader, feed, keep_outputs=outputs)


def read(
    model: nn.Module, loader: Loader, feed: Feed, *, name: str = "loader", keep_outputs: bool = False
) -> Evaluation:
    """Evaluation of a model as it stands, whatever its modes; used where modes are already set."""
    losses, correct, kept = [], [], []
    with torch.no_grad():  # in inference mode what a module keeps for later could not be trained on any more
        for batch in batches_of(loader, name):
            output = feed(model, batch)
            losses.append(output.loss.double().cpu())
            if output.correct is not None:
                correct.append(output.correct.cpu())
            if keep_outputs:
                _check_outputs(output.outputs, len(output.loss))
                kept.append(output.outputs.to(torch.promote_types(output.outputs.dtype, torch.float32)).cpu())
    return Evaluation(
        torch.cat(losses).numpy(),
        torch.cat(correct).numpy() if correct else None,
        torch.cat(kept).clone() if kept else None,
    )


def _check_outputs(outputs: Any, n: int) -> None:
    if not isinstance(outputs, Tensor) or outputs.shape[:1] != (n,):
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise LoaderError(f"batch_fn must return outputs that can be kept, one tensor [{n}, ...], not {found}")

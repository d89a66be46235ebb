"""Two models on the same batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.agreement.columns import Sides
from closerlook.agreement.result import Agreement
from closerlook.agreement.table import check_settings, from_sides
from closerlook.batches import BatchFn, Feed, Loader, Output, batches_of, feed_for, inputs_and_targets, tensors_in
from closerlook.errors import LoaderError, UsageError
from closerlook.evaluation import modes_kept
from closerlook.views import buffers_kept


def agreement(
    model_a: nn.Module,
    model_b: nn.Module,
    loader: Loader,
    *,
    temperature: float = 1.0,
    level: float = 0.95,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> Agreement:
    """Agreement of two models in function: labels, probabilities, errors, calibration, and what an ensemble gains.

    With predicted labels y, probabilities p (of logits / temperature for the divergences) and hits h: agreement =
    share of examples with y_a = y_b; KL(a, b) = mean of sum_c p_a log(p_a / p_b); JS = mean of (KL(p_a, m) +
    KL(p_b, m)) / 2 with m = (p_a + p_b) / 2; error overlap = both wrong / at least one wrong; kappa = (share of h_a =
    h_b less that of independent hits) / (1 - that of independent hits); expected calibration error = sum over 15 bins
    of equal width of |hits - confidences| / n; gain = accuracy of (p_a + p_b) / 2 less that of the better model. All
    of it on all examples, where B is right and where B is wrong.

    Outputs that are no logits with hits (regression, dense prediction) have the root mean square of their difference,
    the share of B's variance that A gives (r2), and the losses and hits of both.

    Both models see the same batches, in eval mode, and come back as they were. Intervals are over examples: Wilson's
    for shares, else a jackknife over examples with Student's t. A calibration error is never negative, so that of few
    examples is biased upwards, by 0.4 sqrt(bins / n) at most.

    Parameters
    ----------
    temperature
        Divides the logits in the divergences, and nowhere else.
    level
        Of the intervals.

    Raises
    ------
    LoaderError
        A one-shot or empty loader, or a model that writes into its input.
    MismatchError
        The outputs differ in shape.
    NotFiniteError
        An output is NaN.
    UsageError
        A temperature or level that makes no sense.

    Examples
    --------
    >>> batches = [(torch.eye(3), torch.arange(3))]
    >>> found = agreement(nn.Identity(), nn.Identity(), batches)
    >>> found.agreement, found.kl_a_b, found.estimate("agreement")
    (1.0, 0.0, Estimate(value=1.0, low=0.438..., high=1.0))

    Sources: Stanton et al. 2021 (arXiv 2106.05945) for agreement and divergence of student and teacher; Fort et al.
    2019 (arXiv 1912.02757) for disagreement; Geirhos et al. 2020 (arXiv 2006.16736) for the kappa of errors; Guo et al.
    2017 (arXiv 1706.04599) for calibration.
    """
    for name, model in (("model_a", model_a), ("model_b", model_b)):
        if not isinstance(model, nn.Module):
            raise UsageError(f"{name} is a {type(model).__name__} and not a network; see closerlook.loaded")
    check_settings(temperature, level)
    with ready(model_a, batch_fn, device, autocast) as a, ready(model_b, batch_fn, device, autocast) as b:
        read = [(a(batch), b(batch), _targets(batch)) for batch in batches_of(loader)]
    return from_sides(_joined(*zip(*read, strict=True)), temperature, level)


class Reader:
    """Outputs of one model for batches that it leaves as they are."""

    def __init__(self, model: nn.Module, feed: Feed) -> None:
        self._model, self._feed = model, feed

    def __call__(self, batch: Any) -> Output:
        """What the batch function returns, on the CPU.

        Raises
        ------
        LoaderError
            The model writes into its input, or there is not one output per example.
        """
        before = _versions(batch)
        with torch.no_grad():
            found = self._feed(self._model, batch)
        if _versions(batch) != before:
            raise LoaderError(
                f"the {type(self._model).__name__} writes into its input, so that the other model sees another batch; "
                "make its first operation one that is not in place (inplace=False, x = x.clone())"
            )
        outputs = found.outputs
        if not isinstance(outputs, Tensor) or outputs.shape[:1] != found.loss.shape:
            kind = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise LoaderError(f"batch_fn must return outputs that can be compared, one tensor [n, ...], not {kind}")
        correct = None if found.correct is None else found.correct.cpu()
        return Output(found.loss.cpu(), outputs.cpu(), correct)


def _versions(batch: Any) -> list[int]:
    return [value._version for value in tensors_in(batch) if not value.is_inference()]


@contextmanager
def ready(
    model: nn.Module, batch_fn: BatchFn | None, device: str | torch.device | None, autocast: torch.dtype | None
) -> Iterator[Reader]:
    """A reader of the model in eval mode; modes and buffers come back as they were, also after an exception."""
    model, feed = feed_for(model, batch_fn, device, autocast)
    with modes_kept(model), buffers_kept(model):
        model.eval()
        yield Reader(model, feed)


def _targets(batch: Any) -> Tensor | None:
    """The class numbers of a batch of the usual form; a batch function of the user's may read others."""
    try:
        targets = inputs_and_targets(batch)[1]
    except LoaderError:
        return None
    whole = isinstance(targets, Tensor) and targets.ndim == 1 and not targets.is_floating_point()
    return targets.cpu().long() if whole else None


def _joined(a: tuple[Output, ...], b: tuple[Output, ...], targets: tuple[Tensor | None, ...]) -> Sides:
    outputs = [torch.cat([each.outputs for each in side]) for side in (a, b)]
    losses = [torch.cat([each.loss for each in side]) for side in (a, b)]
    hits = [[each.correct for each in side if each.correct is not None] for side in (a, b)]
    known = len(hits[0]) == len(hits[1]) == len(a)
    correct = (torch.cat(hits[0]), torch.cat(hits[1])) if known else None
    sides = Sides((outputs[0], outputs[1]), correct, (losses[0], losses[1]))
    given = [each for each in targets if each is not None]
    if not sides.classify or correct is None or len(given) < len(targets):
        return sides
    classes = torch.cat(given)
    # Only targets that explain the hits of both models are those that the batch function used.
    fits = all(
        len(classes) == len(hit) and torch.equal(output.argmax(1) == classes, hit)
        for output, hit in zip(outputs, correct, strict=True)
    )
    return Sides(sides.outputs, correct, sides.losses, classes) if fits else sides

"""Smoothed labels as soft as another target."""

import math

import torch
from scipy.optimize import brentq
from torch import Tensor

_LEAST = 1e-9  # keeps every probability above 0, whose logarithm a loss can take


def smoothed_labels(targets: Tensor, classes: int, share: float) -> Tensor:
    """``(1 - share) onehot + share / classes`` [n, classes] in float64 for class numbers [n].

    Examples
    --------
    >>> smoothed_labels(torch.tensor([1]), 2, share=0.5).tolist()
    [[0.25, 0.75]]

    Source: Szegedy et al. 2016 (arXiv 1512.00567), section 7.
    """
    plain = torch.nn.functional.one_hot(targets.long(), classes).double()
    return (1 - share) * plain + share / classes


def share_of_entropy(entropy: float, classes: int) -> float:
    """The share at which smoothed labels of so many classes have an entropy, in nats; between 1e-9 and 1.

    All smoothed labels of one share have the same entropy, which grows with it from 0 to log(classes). What lies
    outside gets the nearest share.

    Examples
    --------
    >>> round(share_of_entropy(0.25 * math.log(4) + 0.75 * math.log(4 / 3), classes=2), 12)
    0.5
    """
    if entropy >= math.log(classes):
        return 1.0
    if entropy <= _entropy(_LEAST, classes):
        return _LEAST
    return float(brentq(lambda share: _entropy(share, classes) - entropy, _LEAST, 1.0, xtol=1e-15, rtol=1e-13))


def _entropy(share: float, classes: int) -> float:
    other, own = share / classes, 1 - share + share / classes
    return -(classes - 1) * other * math.log(other) - own * math.log(own)


def as_soft_as(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Logits of smoothed labels as soft, on average, as those of a teacher are at a temperature.

    For logits [n, classes] the mean entropy of ``softmax(found / T)`` is that of ``softmax(logits / T)``: one share for
    all examples, so that nothing is left of what the teacher says about an image or a class.

    Examples
    --------
    >>> found = as_soft_as(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]), temperature=1.0)
    >>> soft = found.softmax(1)
    >>> bool(soft[0, 0] == soft[1, 1]), round(float(soft[0, 0]), 4)
    (True, 0.8184)
    """
    told = (logits.double() / temperature).log_softmax(1)
    entropy = float(-(told.exp() * told).sum(1).mean())
    classes = logits.shape[1]
    share = share_of_entropy(entropy, classes)
    return (temperature * smoothed_labels(targets, classes, share).log()).to(logits)

"""Stability thresholds: the curvature above which an optimizer's steps grow instead of shrinking."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch.optim import SGD, Adam, AdamW, Optimizer

from closerlook.errors import UsageError

_SGD = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
_ADAM = {"beta1": 0.9, "weight_decay": 0.0}


def stability_threshold(optimizer: str | Optimizer, lr: float | None = None, **settings: float) -> float:
    """The eigenvalue of the Hessian above which the iterates of an optimizer diverge on a quadratic.

    With learning rate a, momentum m and weight decay d, on the loss ``lambda w^2 / 2``:

    - gradient descent: ``2 / a - d``;
    - momentum as in PyTorch, dampening q: ``(2 + 2 m) / ((1 - q) a) - d``;
    - Nesterov momentum: ``(2 + 2 m) / ((1 + 2 m) a) - d``;
    - Adam (m = beta1): ``(2 + 2 m) / ((1 - m) a)``, for the preconditioned Hessian ``P^-1/2 H P^-1/2`` with P held;
      with AdamW ``(2 - a d)(1 + m) / ((1 - m) a)``.

    Each is where the first root of the iteration's characteristic polynomial leaves the unit circle, at -1. d is that
    of a decay that goes through the gradient, which adds d to every eigenvalue (Adam adds it before it divides, so
    there it belongs into the Hessian and is left out here). Full batches and fixed settings are assumed: noise of small
    batches lowers the threshold.

    Parameters
    ----------
    optimizer
        ``"sgd"``, ``"adam"``, ``"adamw"``, or an SGD, Adam or AdamW of PyTorch, with its settings: then of its groups
        the lowest threshold.
    lr
        Learning rate, with a name.
    settings
        With a name: momentum, dampening, nesterov, weight_decay; beta1 and weight_decay for Adam.

    Raises
    ------
    UsageError
        Another optimizer, or a setting that it does not have.

    Examples
    --------
    >>> stability_threshold("sgd", 0.1), round(stability_threshold("sgd", 0.1, momentum=0.9), 6)
    (20.0, 38.0)
    >>> round(stability_threshold("adam", 0.001), 6)
    38000.0

    Source: Cohen et al. 2021 (arXiv 2103.00065), appendix B, for momentum; Cohen et al. 2022 (arXiv 2207.14484) for
    Adam. Dampening and decay follow from the same polynomials: docs/curvature.md.
    """
    if isinstance(optimizer, str):
        if lr is None:
            raise UsageError(f"{optimizer} needs a learning rate: pass lr")
        return _named(optimizer, lr, settings)
    if lr is not None or settings:
        raise UsageError("an optimizer has its own learning rate and settings; leave them out, or pass its name")
    return min(_named(*_of(optimizer, group)) for group in optimizer.param_groups)


def against(value: float, residual: float, threshold: float) -> Literal["above", "below", "within the residual"]:
    """On which side of a threshold an eigenvalue lies, which is known to within a residual.

    Examples
    --------
    >>> against(30.0, 1.0, 20.0), against(20.5, 1.0, 20.0)
    ('above', 'within the residual')
    """
    if abs(value - threshold) <= residual:
        return "within the residual"
    return "above" if value > threshold else "below"


def _of(optimizer: Optimizer, group: Mapping[str, Any]) -> tuple[str, float, dict[str, float]]:
    if isinstance(optimizer, SGD):
        return "sgd", float(group["lr"]), {name: group[name] for name in _SGD}
    if isinstance(optimizer, Adam | AdamW):
        decoupled = isinstance(optimizer, AdamW) or group.get("decoupled_weight_decay", False)
        settings = {"beta1": float(group["betas"][0]), "weight_decay": group["weight_decay"]}
        return "adamw" if decoupled else "adam", float(group["lr"]), settings
    raise UsageError(f"no stability threshold is known for {type(optimizer).__name__}; there is SGD, Adam, AdamW")


def _named(name: str, lr: float, settings: Mapping[str, float]) -> float:
    known = {"sgd": _SGD, "adam": _ADAM, "adamw": _ADAM}.get(name)
    if known is None:
        raise UsageError(f"no stability threshold is known for {name!r}; choose sgd, adam or adamw")
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UsageError(f"{name} has no setting {unknown[0]!r}; it takes {', '.join(known)}")
    if not lr >= 0:
        raise UsageError(f"the learning rate is {lr:g}; it must be 0 or more")
    if lr == 0:
        return math.inf
    given = {**known, **settings}
    return _of_sgd(lr, **given) if name == "sgd" else _of_adam(lr, decoupled=name == "adamw", **given)


def _of_sgd(lr: float, momentum: float, dampening: float, nesterov: float, weight_decay: float) -> float:
    if nesterov:
        return (2 + 2 * momentum) / ((1 + 2 * momentum) * lr) - weight_decay
    # Without momentum PyTorch does not dampen.
    return (2 + 2 * momentum) / ((1 - dampening if momentum else 1) * lr) - weight_decay


def _of_adam(lr: float, beta1: float, weight_decay: float, decoupled: bool) -> float:
    return (2 - lr * weight_decay * decoupled) * (1 + beta1) / ((1 - beta1) * lr)

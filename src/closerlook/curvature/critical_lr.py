"""The critical learning rate: the smallest at which a step no longer lowers the loss."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.optim import Optimizer

from closerlook import figures
from closerlook.batches import BatchFn, Loader, batches_of
from closerlook.curvature.bracket import Bracket, first_rise
from closerlook.curvature.direction import next_step
from closerlook.curvature.hessian import HessianOperator
from closerlook.curvature.modes import BatchNorm
from closerlook.curvature.opened import Opened, Reading, opened
from closerlook.errors import UsageError
from closerlook.views import borrowed
from closerlook.weights.blocks import Blocks, blocks_of, dots

DOUBLINGS = 20


@dataclass(frozen=True, eq=False, kw_only=True)
class CriticalLR(Reading):
    """The critical learning rate along a direction, whole and per block; `float` gives the number.

    `slope` is the derivative of the loss along the direction, at which it falls at first. `forward_passes` counts all
    forward passes over the loader, beside the one gradient.
    """

    bracket: Bracket
    blocks: Mapping[str, Bracket]
    direction: str
    slope: float
    tolerance: float
    forward_passes: int

    @property
    def value(self) -> float:
        """The critical learning rate; infinite where the loss never rises."""
        return self.bracket.value

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values; what is infinite is None, and its note says so."""
        return {
            **self.told(), **_plain(self.bracket), "direction": self.direction, "slope": self.slope,
            "tolerance": self.tolerance, "blocks": {name: _plain(block) for name, block in self.blocks.items()},
            "forward_passes": self.forward_passes,
        }  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """One row per block."""
        return pd.DataFrame([{"block": name, **asdict(block)} for name, block in self.blocks.items()])

    def plot(self, ax: Axes | None = None) -> Axes:
        """The critical learning rate of every block; what is infinite is left out."""
        values = [block.value if math.isfinite(block.value) else math.nan for block in self.blocks.values()]
        ax = figures.layer_profile(list(self.blocks), {"critical learning rate": {0: values}}, "learning rate", ax)
        ax.set_yscale("log")
        return ax


def _plain(bracket: Bracket) -> dict[str, Any]:
    infinite = (name for name in ("value", "high") if math.isinf(getattr(bracket, name)))
    return {**asdict(bracket), **dict.fromkeys(infinite)}


def critical_lr(
    model: nn.Module,
    loader: Loader,
    *,
    direction: Literal["gradient"] | Optimizer = "gradient",
    per_block: bool | Blocks = False,
    params: str = "*",
    batch_norm: BatchNorm = "batch",
    tolerance: float = 0.01,
    start: float | None = None,
    limit: float | None = None,
    batch_fn: BatchFn | None = None,
    device: str | torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> CriticalLR:
    """The smallest eta with ``L(w - eta d) > L(w)``, by forward passes alone once the direction d is known.

    On a quadratic with d its gradient along an eigenvector it is ``2 / lambda``; on any quadratic
    ``2 d'g / d'H d``. L is the mean loss over the whole loader, without any penalty on the weights.

    Parameters
    ----------
    direction
        ``"gradient"``, or an optimizer of this model: then d is what its next step would subtract, over its learning
        rate, with momentum, preconditioner and decay; nothing of it is changed. Of groups with other learning rates the
        ratio to the first is kept.
    per_block
        Also the critical rate of every block, when it moves alone along its part of d; as in `sharpness`.
    batch_norm
        As in `sharpness`.
    tolerance
        Relative width of the bracket.
    start
        The first learning rate that is tried: one near the answer saves passes. Default ``L / d'g``, at which a loss
        that fell as it begins would be 0.
    limit
        Beyond it nothing is tried. Default: 2^20 times `start`.

    Raises
    ------
    NotFiniteError
        The loss or the gradient is not finite at w; along the direction that counts as higher.
    LoaderError
        A one-shot or empty loader, or one that does not repeat.
    UsageError
        Every parameter is frozen, a setting is not positive, or the optimizer trains other parameters.

    Examples
    --------
    The loss ``3 w^2``, whose curvature is 6:

    >>> from closerlook.batches import Output
    >>> def squares(model, batch):
    ...     return Output(model(batch).square().sum(1), None)
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> found = critical_lr(layer, [torch.full((1, 1), 3**0.5)], batch_fn=squares)
    >>> found.bracket.low <= 2 / 6 <= found.bracket.high
    True

    Source: Kalra and Barkeshli 2024 (arXiv 2406.09405), who set the length of warmup by it.
    """
    if not (tolerance > 0 and (start is None or start > 0) and (limit is None or limit > 0)):
        raise UsageError("tolerance, start and limit must be positive")
    with opened(
        model, loader, params=params, batch_norm=batch_norm, batch_fn=batch_fn, device=device, autocast=autocast
    ) as site:
        whole = site.operator()
        groups = blocks_of(whole.names, per_block)
        gradient = whole.gradient()
        step = _direction(direction, model, whole, gradient)
        slopes = dots(step, gradient, whole.spans(), {"": whole.names, **groups})
        with _losses_along(site, whole) as loss_at:
            base = loss_at(step, 0.0)

            def rise(part: Tensor, slope: float) -> Bracket:
                first = start if start is not None else (abs(base) or 1.0) / abs(slope or 1.0)
                bound = limit if limit is not None else first * 2**DOUBLINGS
                unmoved = _unmoved(part, slope)
                return unmoved or first_rise(
                    lambda eta: loss_at(part, eta), base, start=min(first, bound), limit=bound, tolerance=tolerance
                )

            found = rise(step, slopes[""])
            asked = groups if per_block else {}
            blocks = {name: rise(_part(step, whole, names), slopes[name]) for name, names in asked.items()}
    forward = 1 + found.forward_passes + sum(block.forward_passes for block in blocks.values())
    return CriticalLR(
        bracket=found, blocks=blocks, slope=slopes[""], tolerance=tolerance, forward_passes=forward,
        direction=direction if isinstance(direction, str) else type(direction).__name__,
        **site.told(whole, whole.passes + forward / 3),
    )  # fmt: skip


def _direction(direction: str | Optimizer, model: nn.Module, whole: HessianOperator, gradient: Tensor) -> Tensor:
    if isinstance(direction, Optimizer):
        parts = {name: gradient[span] for name, span in whole.spans().items()}
        return next_step(direction, model, whole.names, parts).to(gradient)
    if direction != "gradient":
        raise UsageError(f"unknown direction {direction!r}; choose 'gradient' or pass an optimizer")
    return gradient


def _part(step: Tensor, whole: HessianOperator, names: tuple[str, ...]) -> Tensor:
    spans, part = whole.spans(), torch.zeros_like(step)
    for name in names:
        part[spans[name]] = step[spans[name]]
    return part


def _unmoved(step: Tensor, slope: float) -> Bracket | None:
    """The answer where there is nothing to try."""
    if not bool(step.any()):
        return Bracket(math.inf, math.inf, math.inf, 0, "the direction is zero: nothing moves")
    if slope <= 0:
        return Bracket(0.0, 0.0, 0.0, 0, "the loss does not fall along the direction, not even at first")
    return None


@contextmanager
def _losses_along(site: Opened, whole: HessianOperator) -> Iterator[Callable[[Tensor, float], float]]:
    """The mean loss, summed in float64, at ``w - eta step``."""
    with borrowed(site.model, site.space) as views, torch.no_grad():
        here = views.buffer.clone()

        def loss_at(step: Tensor, eta: float) -> float:
            torch.sub(here, views.encode(whole.spread(step)), alpha=eta, out=views.buffer)
            total = sum(float(site.feed(site.model, batch).loss.double().sum()) for batch in batches_of(site.loader))
            return total / whole.n

        yield loss_at

"""Learning rates of their own: for a block, for all but a block, for a random set of single weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from closerlook.errors import UsageError
from closerlook.schedules import Schedule
from closerlook.training.interventions.change import Change, Intervention, Patterns, Subject


@dataclass(frozen=True)
class GroupRate(Intervention):
    """Give some parameters a learning rate of their own: the schedule's, times a factor over time.

    **What.** Warm up one block only (``GroupRate(Warmup("100it"), "head.*")``), all but one (``but="head.*"``), or
    train a head at a tenth of the rate (``GroupRate(Constant(0.1), "head.*")``). Every parameter stays under the
    schedule.

    **Formula.** ``w <- w + f(step) u``, with u the optimizer's step. Wherever the step is proportional to the learning
    rate (SGD with momentum and weight decay, Adam, AdamW) that is the rate ``f(step) lr``; momentum goes on as usual.

    **Cost.** Two copies of the chosen parameters per step where f is not 1.

    **Source.** Gotmare et al. 2019 (arXiv 1810.13243), section 4, warm up all layers; the restriction to a block is the
    test of their claim.

    Examples
    --------
    >>> import closerlook as cl
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> slow = GroupRate(cl.constant(0.0), "bias")
    >>> cl.train(nn.Linear(4, 4), data, lr=0.1, epochs=2, interventions=[slow]).diverged_at is None
    True
    """

    schedule: Schedule
    params: Patterns = "*"
    but: Patterns = ()
    kind: Literal["group_rate"] = "group_rate"

    def bind(self, subject: Subject) -> Change:
        """Check names and schedule."""
        names = subject.matching(self.params, self.but)
        return _Rates({name: None for name in names}, _factor(self.schedule, subject), subject)


@dataclass(frozen=True)
class RandomRate(Intervention):
    """Give as many single weights as `like` has, drawn at random from all trained ones, a learning rate of their own.

    **What.** The control of `GroupRate`: does it matter *which* weights are warmed up, or only how many?

    **Formula.** ``w_j <- w_j + f(step) u_j`` for the drawn entries j, ``w_j + u_j`` for the others.

    **Cost.** Three copies of all trained parameters per step where f is not 1, and one mask.

    **Source.** A size-matched random control, as in studies that ablate units; the draw follows from `seed` alone.

    Examples
    --------
    >>> from closerlook.schedules import Warmup
    >>> RandomRate(Warmup("100it"), like="head.*", seed=3).kind
    'random_rate'
    """

    schedule: Schedule
    like: Patterns
    seed: int
    kind: Literal["random_rate"] = "random_rate"

    def bind(self, subject: Subject) -> Change:
        """Draw the weights."""
        count = sum(subject.parameters[name].numel() for name in subject.matching(self.like))
        masks = _drawn(subject.parameters, count, self.seed)
        return _Rates(masks, _factor(self.schedule, subject), subject)


def _factor(schedule: Any, subject: Subject) -> Callable[[int], float]:
    if not hasattr(schedule, "factor"):
        raise UsageError(f"a rate of its own takes a schedule, such as closerlook.constant(0.5), not {schedule!r}")
    factor: Callable[[int], float] = schedule.factor(subject.clock)
    return factor


def _drawn(parameters: Mapping[str, nn.Parameter], count: int, seed: int) -> dict[str, Tensor | None]:
    sizes = [value.numel() for value in parameters.values()]
    chosen = torch.zeros(sum(sizes), dtype=torch.bool)
    chosen[torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed))[:count]] = True
    parts = zip(parameters.items(), chosen.split(sizes), strict=True)
    return {name: part.view(value.shape).to(value.device) for (name, value), part in parts}


class _Rates(Change):
    """Scales the update of parameters, whole ones or (where there is a mask) entries of them."""

    def __init__(self, masks: Mapping[str, Tensor | None], factor: Callable[[int], float], subject: Subject) -> None:
        self._chosen = [(subject.parameters[name], mask) for name, mask in masks.items()]
        self._factor = factor

    def update(self, step: int) -> AbstractContextManager[None]:
        factor = self._factor(step)
        return nullcontext() if factor == 1 else self._scaled(factor)

    @contextmanager
    def _scaled(self, factor: float) -> Iterator[None]:
        before = [value.detach().clone() for value, _ in self._chosen]
        yield
        for (value, mask), old in zip(self._chosen, before, strict=True):
            # lerp gives its ends to the last bit: a factor of 0 moves nothing, and one of 1 changes nothing.
            new = value.detach()
            slowed = torch.lerp(old, new, factor)
            new.copy_(slowed if mask is None else torch.where(mask, slowed, new))

"""Instruments that watch a training: how far each layer moves, and from where."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.errors import UsageError
from closerlook.training.interventions import Subject
from closerlook.training.loop import Observer, Tick
from closerlook.weights.blocks import Blocks, blocks_of

# A difference of so many entries, and its copy in float64, stay in the cache until they are summed.
CHUNK = 1 << 15


class Instrument:
    """An observer that looks at the network itself: `bind` gives the one for a run."""

    def bind(self, subject: Subject) -> Observer:
        """The observer of this network."""
        raise NotImplementedError


def bound(observers: Sequence[Observer | Instrument], subject: Subject) -> list[Observer]:
    """The observers of a run, its instruments bound to the network.

    Raises
    ------
    UsageError
        Something that cannot be called.
    """
    for each in observers:
        if not isinstance(each, Instrument) and not callable(each):
            raise UsageError(f"{each!r} is no observer, as it cannot be called; what changes belongs to interventions")
    return [each.bind(subject) if isinstance(each, Instrument) else each for each in observers]


@dataclass(frozen=True)
class LayerTrace(Instrument):
    """Per layer, every few steps: gradient norm, relative and angular update, distance and similarity to the start.

    With w the weights of a layer before a step, w' after it and w_0 at step 0, a row holds for each layer

    - ``gradient``: |g|, as the optimizer got it (clipped, if it was);
    - ``update``: |w' - w| / |w|, and ``angle``: the angle between w and w' in radians;
    - ``distance``: |w' - w_0| / |w_0|, and ``similarity``: cos(w', w_0).

    Norms are summed in float64. A layer that was zero has no relative numbers (None), and None stands for what is not
    finite. A parameter that a step does not move, frozen or not reached, has no gradient: it counts as 0.

    Parameters
    ----------
    every
        Steps between two rows.
    blocks
        Patterns of parameter names by block; by default every module that owns parameters is one.

    Notes
    -----
    Cost: a copy of the weights before each observed step, and six norms in float64; the batch does not matter. Beside a
    step of VGG-11-BN at a quarter of its width on 128 images of 16x16 that is 36 % (quartiles 33 and 48) with
    ``every=1``, and 3.7 % (0.8 and 6.3) with ``every=10`` (benchmarks/observers.py).

    Examples
    --------
    >>> import closerlook as cl
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> rows = cl.train(nn.Linear(4, 4), data, lr=0.1, epochs=2, observers=[LayerTrace()]).observations
    >>> sorted(rows[0]["layers"]["(model)"])
    ['angle', 'distance', 'gradient', 'similarity', 'update']
    """

    every: int = 1
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        """Refuse an interval that never comes."""
        if self.every < 1:
            raise UsageError(f"layers cannot be observed every {self.every} steps; give at least 1")

    def bind(self, subject: Subject) -> Observer:
        """Find the blocks and begin to watch."""
        return _LayerWatch(blocks_of(tuple(subject.parameters), self.blocks or True), self.every, subject)


class _LayerWatch:
    def __init__(self, blocks: Mapping[str, Sequence[str]], every: int, subject: Subject) -> None:
        self._names, self._every, self._subject = blocks, every, subject
        self._blocks = {block: [subject.parameters[name] for name in names] for block, names in blocks.items()}
        self._start: Mapping[str, Sequence[Tensor]] | None = None
        self._before: Mapping[str, Sequence[Tensor]] | None = None

    def __call__(self, tick: Tick) -> dict[str, Any] | None:
        row = None
        if self._before is not None and not tick.diverged:
            row = {"lr": tick.lr, "loss": tick.loss, "layers": self._numbers(self._before)}
        self.resume(tick)
        return row

    def resume(self, tick: Tick) -> None:
        """Keep the weights when the next step is one to be observed."""
        self._before = self._copy() if (tick.step + 1) % self._every == 0 else None

    def _numbers(self, before: Mapping[str, Sequence[Tensor]]) -> dict[str, dict[str, float | None]]:
        if self._start is None:
            self._start = self._first()
        return {block: moved(values, before[block], self._start[block]) for block, values in self._blocks.items()}

    def _first(self) -> dict[str, list[Tensor]]:
        # In the memory format of the weights, and where they are: a difference is then one pass.
        state, like = self._subject.start(), self._subject.parameters
        return {
            block: [torch.empty_like(like[name], requires_grad=False).copy_(state[name]) for name in names]
            for block, names in self._names.items()
        }

    def _copy(self) -> dict[str, list[Tensor]]:
        return {block: [value.detach().clone() for value in values] for block, values in self._blocks.items()}


def moved(
    values: Sequence[nn.Parameter], before: Sequence[Tensor], start: Sequence[Tensor]
) -> dict[str, float | None]:
    """The numbers of one layer, as in `LayerTrace`, from its weights now, before the step and at the start."""
    lengths = [_lengths(*parts) for parts in zip(values, before, start, strict=True)]
    size, old, first, step, away, gradient = (math.hypot(*each) for each in zip(*lengths, strict=True))
    numbers = {
        "gradient": gradient,
        "update": step / old if old else None,
        "angle": _angle(size, old, step) if size and old else None,
        "distance": away / first if first else None,
        "similarity": math.cos(_angle(size, first, away)) if size and first else None,
    }
    # A row is plain JSON, which knows no infinity.
    return {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}


def _lengths(value: nn.Parameter, before: Tensor, start: Tensor) -> list[float]:
    """Norms of the weights, those before and at the start, the step, the way from the start, the gradient."""
    # In the order of memory: a sum across it takes several times as long.
    order = sorted(range(value.ndim), key=lambda axis: value.stride(axis), reverse=True)
    now, old, first = (each.detach().permute(order).reshape(-1) for each in (value, before, start))
    gradient = now.new_zeros(1) if value.grad is None else value.grad.to_dense().permute(order).reshape(-1)
    parts = [each.split(CHUNK) for each in (now, old, first)]
    steps, ways = ((x - y for x, y in zip(parts[0], other, strict=True)) for other in parts[1:])
    return torch.stack([_norm(each) for each in (*parts, steps, ways, gradient.split(CHUNK))]).tolist()


def _norm(parts: Iterable[Tensor]) -> Tensor:
    lengths = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
    return torch.linalg.vector_norm(torch.stack(lengths))


def _angle(a: float, b: float, c: float) -> float:
    """The angle between two sides of a triangle from its three sides, accurate for small ones (Kahan 2014)."""
    a, b = max(a, b), min(a, b)
    mu = c - (a - b) if b >= c else b - (a - c)
    ratio = ((a - b) + c) * max(mu, 0.0) / ((a + (b + c)) * max((a - c) + b, 1e-300))
    return 2 * math.atan(math.sqrt(ratio))

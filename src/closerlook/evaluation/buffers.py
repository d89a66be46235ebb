"""Which buffers a point of weight space is read with: they are no coordinates, and a wrong one spoils every number."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from closerlook.errors import MismatchError
from closerlook.evaluation.spectral import spectral_buffers
from closerlook.weights import Point, named

_STATISTICS = ("running_mean", "running_var")
_REPAIR = "use batch_stats='recompute', which estimates them anew"
_ENDS = ("the first end", "the last end")
Buffers = Mapping[str, Tensor]


def check_statistics(model: nn.Module, ends: tuple[Point, Point], policy: str) -> None:
    """Refuse stored statistics of normalising layers that cannot be used.

    The policy ``"interpolate"`` uses those of the two ends, ``"keep"`` the model's own beside them.

    Raises
    ------
    MismatchError
        Statistics are missing, NaN or infinite, or were never filled where another point's were.
    """
    own = {"the model": named(model).buffers}
    beside = {f"{which} ({point.origin})": point.buffers for which, point in zip(_ENDS, ends, strict=True)}
    used = beside if policy == "interpolate" else own
    for name, buffers in used.items():
        flaw = statistics_flaw(model, buffers)
        if flaw is not None:
            raise MismatchError(f"{name} {flaw}, and batch_stats={policy!r} uses them; {_REPAIR}")
    filled = [name for name, buffers in {**used, **beside}.items() if _filled(model, buffers)]
    empty = [name for name in used if name not in filled]
    if empty and filled:
        raise MismatchError(
            f"{empty[0]} has batch-norm statistics that no training has filled (means 0, variances 1), and {filled[0]} "
            f"has; {_REPAIR}"
        )


def statistics_flaw(model: nn.Module, buffers: Buffers) -> str | None:
    """What keeps the model's normalising layers from using these buffers, or None."""
    for name in _names(model):
        if name not in buffers:
            return f"has no {name}"
        value = buffers[name]
        if not bool(torch.isfinite(value).all()) or (name.endswith("var") and bool((value < 0).any())):
            return f"has NaN, infinite or negative numbers in {name}"
    return None


def _filled(model: nn.Module, buffers: Buffers) -> bool:
    """Whether any statistics differ from those of a fresh layer."""
    fresh = {"running_mean": 0.0, "running_var": 1.0}
    stored = [name for name in _names(model) if name in buffers]
    return any(bool((buffers[name] != fresh[name.rpartition(".")[2]]).any()) for name in stored)


def _names(model: nn.Module) -> list[str]:
    return [name for name in named(model).buffers if name.rpartition(".")[2] in _STATISTICS]


def other_buffers(model: nn.Module, points: Sequence[Point], policy: str) -> dict[str, Tensor]:
    """Own copies of the buffers that hold at every point, besides the statistics that the policy sets.

    Under ``"keep"`` they are the model's. Otherwise what all points agree on replaces the model's, which may be a fresh
    network.

    Raises
    ------
    MismatchError
        Floating buffers that are no statistics differ from point to point, and the policy does not mix them.
    """
    buffers = named(model).buffers
    found = {name: value.detach().clone() for name, value in buffers.items()}
    sources = [point for point in points if point.buffers]
    if policy == "keep" or not sources:
        return found
    settled = {id(buffer) for buffer in spectral_buffers(model)} if policy != "interpolate" else set()
    for name in sorted(found.keys() & sources[0].buffers.keys()):
        if name.endswith((*_STATISTICS, "num_batches_tracked")) or id(buffers[name]) in settled:
            continue
        values = [point.buffers[name] for point in sources if name in point.buffers]
        if all(torch.equal(values[0], value.to(values[0].device)) for value in values):
            found[name] = values[0].clone()
        elif policy != "interpolate" and values[0].is_floating_point():
            raise MismatchError(
                f"the buffer {name} differs from point to point, and is neither a weight nor a statistic that "
                f"batch_stats={policy!r} estimates; use 'interpolate' to mix the ends', or 'keep' for the model's own"
            )
    return found

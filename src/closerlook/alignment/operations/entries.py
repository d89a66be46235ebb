"""Operations on single entries, and symmetric ones over all entries along some dimensions."""

from collections.abc import Sequence
from typing import Any

from closerlook.alignment.axes import SINGLE, fix
from closerlook.alignment.operations.call import Call, broadcast, rule
from closerlook.alignment.shapes import Axes


@rule("copy", "fill", "zero", "_to_copy", "detach", "alias", "lift_fresh", "_prelu_kernel", "hardswish", "hardsigmoid")
def pointwise(call: Call) -> Sequence[Axes]:
    """Entry by entry, with broadcasting."""
    return [broadcast(call.tensors, call.shapes[0])]


@rule("_softmax", "_log_softmax")
def same(call: Call) -> Sequence[Axes]:
    """Symmetric along every axis."""
    return [call.axes("self")]


@rule("flip", "cumsum", "cumprod", "roll")
def ordered(call: Call) -> Sequence[Axes]:
    """Operations for which the order along some dimensions matters."""
    axes = call.axes("self")
    for dim in _dims(call.given.get("dims", call.given.get("dim")), len(axes)):
        fix(axes[dim])
    return [axes]


@rule("mean", "sum", "amax", "amin", "std", "var", "std_mean", "var_mean", "linalg_vector_norm", "logsumexp", "prod")
def reduction(call: Call) -> Sequence[Axes]:
    """Symmetric functions of all entries along some dimensions."""
    axes = call.axes("self")
    dims = _dims(call.given.get("dim"), len(axes))
    kept = call.given.get("keepdim", False)
    return [tuple(SINGLE if n in dims else axis for n, axis in enumerate(axes) if kept or n not in dims)]


@rule("max", "min", "argmax", "argmin")
def extreme(call: Call) -> Sequence[Axes]:
    """The place of the largest entry is told, so the order matters."""
    axes = call.axes("self")
    for dim in _dims(call.given.get("dim"), len(axes)):
        fix(axes[dim])
    return reduction(call)


def _dims(given: Any, count: int) -> set[int]:
    if given is None or given == []:
        return set(range(count))
    return {dim % max(count, 1) for dim in ([given] if isinstance(given, int) else given)}

"""Convolutions and products of matrices: where units are read."""

from collections.abc import Sequence

from torch import Tensor

from closerlook.alignment.axes import fix, fixed, fresh, multiplied, resolved, size_of, tie
from closerlook.alignment.operations.call import Call, broadcast, rule
from closerlook.alignment.shapes import Axes

# What each product sums over: argument and dimension. There units are read by the next layer.
SUMS: dict[str, tuple[tuple[str, int], ...]] = {
    "convolution": (("input", 1),), "mm": (("self", 1), ("mat2", 0)), "addmm": (("mat1", 1), ("mat2", 0)),
    "bmm": (("self", 2), ("mat2", 1)), "baddbmm": (("batch1", 2), ("batch2", 1)), "mv": (("self", 1), ("vec", 0)),
    "dot": (("self", 0), ("tensor", 0)), "vdot": (("self", 0), ("other", 0)),
}  # fmt: skip


@rule("convolution")
def convolution(call: Call) -> Sequence[Axes]:
    """Filters read the channels of their group. Several groups move as wholes, all with the same order inside."""
    axes, weight, groups = call.axes("input"), call.axes("weight"), call.given["groups"]
    for axis in (*axes[2:], *weight[2:]):
        fix(axis)
    wide, narrow = weight[0], weight[1]  # narrow: the channels of one group, inputs unless transposed
    if groups > 1:
        moved = fresh(groups)
        whole = multiplied([moved, fresh(size_of(wide) // groups)])
        tie(wide, whole)
        wide, narrow = whole, multiplied([moved, resolved(narrow)])
    read, units = (wide, narrow) if call.given["transposed"] else (narrow, wide)
    tie(axes[1], read)
    if isinstance(call.given["bias"], Tensor):
        tie(units, call.axes("bias")[0])
    return [(axes[0], units, *map(fixed, call.shapes[0][2:]))]


@rule("mm", "addmm", "bmm", "baddbmm", "mv", "dot", "vdot")
def product(call: Call) -> Sequence[Axes]:
    """Sums over two axes, which are tied; of batches the leading axes too."""
    (one, first), (two, second) = SUMS[call.name]
    left, right = list(call.axes(one)), list(call.axes(two))
    tie(left.pop(first), right.pop(second))
    if len(left) == 2:
        tie(left[0], right.pop(0))
    found = (*left, *right)
    return [broadcast([call.axes("self"), found], call.shapes[0]) if call.name in ("addmm", "baddbmm") else found]

"""Operations that move entries about: views, runs of entries, what is joined and padded."""

from collections.abc import Sequence

from closerlook.alignment.axes import SINGLE, TraceError, fix, fixed, fresh, multiplied, resolved, size_of
from closerlook.alignment.operations.call import Call, broadcast, rule
from closerlook.alignment.shapes import Axes, joined, padded, part, reshaped


@rule("view", "_unsafe_view", "_reshape_alias", "squeeze", "unsqueeze")
def view(call: Call) -> Sequence[Axes]:
    """Neighbouring axes merged and taken apart."""
    if "dtype" in call.given:
        raise TraceError("numbers that are read as another type are not followed")
    return [reshaped(call.axes("self"), call.shapes[0])]


@rule("as_strided")
def restrided(call: Call) -> Sequence[Axes]:
    """Strides that change nothing, as PyTorch writes them for maps of one pixel."""
    shape = tuple(map(size_of, call.axes("self")))
    moved = (size > 1 and old != new for size, old, new in zip(shape, call.strides, call.given["stride"], strict=False))
    if tuple(call.given["size"]) != shape or any(moved):
        raise TraceError("a view by strides is not followed")
    return [call.axes("self")]


@rule("permute")
def permute(call: Call) -> Sequence[Axes]:
    """Axes in another order."""
    axes = call.axes("self")
    return [tuple(axes[dim] for dim in call.given["dims"])]


@rule("t")
def transposed(call: Call) -> Sequence[Axes]:
    """Two axes changed places."""
    return [call.axes("self")[::-1]]


@rule("transpose")
def transpose(call: Call) -> Sequence[Axes]:
    """Two axes changed places."""
    axes, one, two = list(call.axes("self")), call.dim("dim0"), call.dim("dim1")
    axes[one], axes[two] = axes[two], axes[one]
    return [tuple(axes)]


@rule("expand")
def expand(call: Call) -> Sequence[Axes]:
    """Copies are all alike, so that any order of them will do."""
    axes = _aligned(call.axes("self"), len(call.shapes[0]))
    return [tuple(fresh(n) if size_of(axis) == 1 else axis for axis, n in zip(axes, call.shapes[0], strict=True))]


@rule("repeat")
def repeat(call: Call) -> Sequence[Axes]:
    """Copies one after the other."""
    repeats = call.given["repeats"]
    axes = _aligned(call.axes("self"), len(repeats))
    return [tuple(multiplied([fixed(n), resolved(axis)]) for n, axis in zip(repeats, axes, strict=True))]


def _aligned(axes: Axes, count: int) -> Axes:
    return (*[SINGLE] * (count - len(axes)), *axes)


@rule("select", "unbind")
def select(call: Call) -> Sequence[Axes]:
    """One entry of an axis, so the order along it matters."""
    axes, dim = call.axes("self"), call.dim()
    fix(axes[dim])
    return [axes[:dim] + axes[dim + 1 :]]


@rule("index_select")
def selected(call: Call) -> Sequence[Axes]:
    """Entries of an axis by their numbers, so the order along it matters."""
    axes, dim = list(call.axes("self")), call.dim()
    fix(axes[dim])
    axes[dim] = fixed(call.shapes[0][dim])
    return [tuple(axes)]


@rule("slice")
def cut(call: Call) -> Sequence[Axes]:
    """A run of entries; with a step the order matters."""
    axes, dim, size = list(call.axes("self")), call.dim(), call.shapes[0][call.dim()]
    if call.given["step"] != 1:
        fix(axes[dim])
        axes[dim] = fixed(size)
    else:
        start, length = call.given["start"] or 0, size_of(axes[dim])
        start = min(max(start + length if start < 0 else start, 0), length - size)
        axes[dim] = part(axes[dim], start, start + size)
    return [tuple(axes)]


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def pieces(call: Call) -> Sequence[Axes]:
    """Runs of entries one after the other."""
    axes, dim, start, found = call.axes("self"), call.dim(), 0, []
    for shape in call.shapes:
        found.append((*axes[:dim], part(axes[dim], start, start + shape[dim]), *axes[dim + 1 :]))
        start += shape[dim]
    return found


@rule("cat")
def cat(call: Call) -> Sequence[Axes]:
    """Axes one after the other."""
    tensors = [tensor for tensor in call.given["tensors"] if tensor.numel()]
    many, shape = [call.known(tensor) for tensor in tensors], call.shapes[0]
    dim = call.given["dim"] % len(shape)
    others = broadcast([(*axes[:dim], SINGLE, *axes[dim + 1 :]) for axes in many], [*shape[:dim], 1, *shape[dim + 1 :]])
    return [(*others[:dim], joined([axes[dim] for axes in many]), *others[dim + 1 :])]


@rule("stack")
def stack(call: Call) -> Sequence[Axes]:
    """A new axis in its order."""
    many, dim = [call.known(tensor) for tensor in call.given["tensors"]], call.given["dim"] % len(call.shapes[0])
    shape = call.shapes[0]
    others = broadcast(many, shape[:dim] + shape[dim + 1 :])
    return [(*others[:dim], fixed(shape[dim]), *others[dim:])]


@rule("constant_pad_nd")
def pad(call: Call) -> Sequence[Axes]:
    """A constant before and after the entries of an axis."""
    axes, pads = list(call.axes("self")), call.given["pad"]
    for number, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True), 1):
        if min(before, after) < 0:
            raise TraceError("negative padding is not followed")
        axes[-number] = padded(axes[-number], before, after) if before or after else axes[-number]
    return [tuple(axes)]

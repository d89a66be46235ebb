"""How each operation of PyTorch carries the units of its inputs to its outputs, and which axes it ties together.

Every rule is sound: it ties, splits or fixes axes until the operation commutes with whatever may still be permuted. An
operation without a rule is refused where it meets units that move.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from closerlook.alignment.axes import (
    SINGLE,
    Axis,
    TraceError,
    fix,
    fixed,
    fresh,
    is_fixed,
    multiplied,
    resolved,
    size_of,
    tie,
    width,
)
from closerlook.alignment.shapes import Axes, joined, padded, part, reshaped


@dataclass(frozen=True)
class Call:
    """One call of an operation: its arguments by name, the axes of those that are tensors, the shapes it returned."""

    name: str
    given: Mapping[str, Any]
    known: Callable[[Tensor], Axes]
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...] = ()  # of the first tensor, before the call

    def axes(self, name: str) -> Axes:
        """Axes of an argument."""
        return self.known(self.given[name])

    def dim(self, name: str = "dim", argument: str = "self") -> int:
        """A dimension that was given, counted from the front."""
        return self.given[name] % max(len(self.axes(argument)), 1)

    @property
    def tensors(self) -> list[Axes]:
        """Axes of all arguments that are tensors."""
        return [self.known(value) for value in self.given.values() if isinstance(value, Tensor)]


Rule = Callable[[Call], Sequence[Axes]]  # axes of the outputs; those of the last one go for all that follow
RULES: dict[str, Rule] = {}
# What each product sums over: argument and dimension. There units are read by the next layer.
SUMS: dict[str, tuple[tuple[str, int], ...]] = {
    "convolution": (("input", 1),), "mm": (("self", 1), ("mat2", 0)), "addmm": (("mat1", 1), ("mat2", 0)),
    "bmm": (("self", 2), ("mat2", 1)), "baddbmm": (("batch1", 2), ("batch2", 1)), "mv": (("self", 1), ("vec", 0)),
    "dot": (("self", 0), ("tensor", 0)), "vdot": (("self", 0), ("other", 0)),
}  # fmt: skip


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of some operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


@rule("copy", "fill", "zero", "_to_copy", "detach", "alias", "lift_fresh", "_prelu_kernel", "hardswish", "hardsigmoid")
def pointwise(call: Call) -> Sequence[Axes]:
    """Entry by entry, with broadcasting."""
    return [broadcast(call.tensors, call.shapes[0])]


def broadcast(many: Iterable[Axes], shape: Sequence[int]) -> Axes:
    """Tie the axes of tensors that are broadcast to one shape."""
    found: list[Axis | None] = [None] * len(shape)
    for axes in many:
        for place, axis in enumerate(axes, len(shape) - len(axes)):
            other = found[place]
            if other is not None and size_of(axis) > 1:
                tie(other, axis)
            found[place] = axis if size_of(axis) > 1 else other
    return tuple(fixed(size) if axis is None else axis for axis, size in zip(found, shape, strict=True))


@rule("_softmax", "_log_softmax")
def same(call: Call) -> Sequence[Axes]:
    """Symmetric along every axis."""
    return [call.axes("self")]


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


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def batch_norm(call: Call) -> Sequence[Axes]:
    """Scale, shift and statistics follow their channel."""
    axes = call.axes("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(call.given.get(name), Tensor):
            tie(axes[1], call.axes(name)[0])
    return [axes, *(tuple(map(fixed, shape)) for shape in call.shapes[1:])]


@rule("native_layer_norm")
def layer_norm(call: Call) -> Sequence[Axes]:
    """Symmetric in what is normalised together."""
    axes, count = call.axes("input"), len(call.given["normalized_shape"])
    for name in ("weight", "bias"):
        if isinstance(call.given[name], Tensor):
            broadcast([axes[-count:], call.axes(name)], call.given[name].shape)
    return [axes, (*axes[:-count], *[SINGLE] * count)]


@rule("native_group_norm")
def group_norm(call: Call) -> Sequence[Axes]:
    """A group of channels moves as a whole, and its channels inside it."""
    axes = call.axes("input")
    for name in ("weight", "bias"):
        if isinstance(call.given[name], Tensor):
            tie(axes[1], call.axes(name)[0])
    keep_groups(axes[1], call.given["C"] // call.given["group"])
    return [axes, (axes[0], fixed(call.given["group"]))]


def keep_groups(axis: Axis, size: int) -> None:
    """Move runs of `size` entries as wholes only."""
    start = 0
    for product in resolved(axis):
        first, start = start, start + width(product)
        if first // size == (start - 1) // size or is_fixed((product,)):
            continue
        if first % size or start % size:
            raise TraceError(f"groups of {size} channels do not fit channels that are concatenated or padded")
        inner = 1
        for units in reversed(product):
            if inner < size < inner * units.size:
                if size % inner:
                    raise TraceError(f"groups of {size} channels do not fit runs of {inner}")
                units.keep((size // inner,))
            inner *= units.size


@rule("embedding")
def embedding(call: Call) -> Sequence[Axes]:
    """Rows by their number, so their order matters."""
    words, indices = call.axes("weight"), call.axes("indices")
    fix(words[0])
    return [(*indices, words[1])]


@rule("glu")
def glu(call: Call) -> Sequence[Axes]:
    """The first half gated by the second, which is permuted alike."""
    axes, dim, half = list(call.axes("self")), call.dim(), call.shapes[0][call.dim()]
    first, second = part(axes[dim], 0, half), part(axes[dim], half, 2 * half)
    tie(first, second)
    axes[dim] = first
    return [tuple(axes)]


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


_SPATIAL = {
    1: ("avg_pool1d", "upsample_nearest1d", "upsample_linear1d", "reflection_pad1d", "replication_pad1d"),
    2: ("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d",
        "upsample_bilinear2d", "upsample_bicubic2d", "reflection_pad2d", "replication_pad2d"),
    3: ("max_pool3d_with_indices", "avg_pool3d", "_adaptive_avg_pool3d", "adaptive_max_pool3d", "upsample_nearest3d"),
}  # fmt: skip


def _positions(count: int) -> Rule:
    def spatial(call: Call) -> Sequence[Axes]:
        axes = call.tensors[0]
        for axis in axes[-count:]:
            fix(axis)
        return [(*axes[:-count], *map(fixed, call.shapes[0][-count:]))]

    return spatial


for _count, _names in _SPATIAL.items():
    rule(*_names)(_positions(_count))

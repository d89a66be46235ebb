"""Norms, pooling, embeddings and gates."""

from collections.abc import Sequence

from torch import Tensor

from closerlook.alignment.axes import SINGLE, Axis, TraceError, fix, fixed, is_fixed, resolved, tie, width
from closerlook.alignment.operations.call import Call, Rule, broadcast, rule
from closerlook.alignment.shapes import Axes, part


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

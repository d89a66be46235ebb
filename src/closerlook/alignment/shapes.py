"""Axes of tensors that are reshaped, cut and joined."""

from collections.abc import Sequence

from closerlook.alignment.axes import (
    SINGLE,
    Axis,
    Product,
    TraceError,
    Units,
    factors,
    fixed,
    fresh,
    is_fixed,
    multiplied,
    resolved,
    size_of,
    split,
    tie,
    width,
)

Axes = tuple[Axis, ...]


def reshaped(axes: Axes, shape: Sequence[int]) -> Axes:
    """Axes of a view: neighbours are merged into products, and products taken apart."""
    if 0 in shape:
        return tuple(map(fixed, shape))
    before, after, found = [axis for axis in axes if size_of(axis) != 1], list(shape), list[Axis]()
    while before or after:
        taken, wanted, have, want = list[Axis](), list[int](), 1, 1
        while not wanted or have != want:
            if have < want or (not after and before):
                taken.append(before.pop(0))
                have *= size_of(taken[-1])
            else:
                wanted.append(after.pop(0))
                want *= wanted[-1]
        found += divided(multiplied(map(resolved, taken)), wanted)
    return tuple(found)


def divided(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """An axis as the product of axes of these sizes."""
    tails = list[Axis]()
    for size in reversed(sizes[1:]):
        axis, tail = _without_tail(axis, size)
        tails.insert(0, tail)
    return [axis, *tails]


def _without_tail(axis: Axis, size: int) -> tuple[Axis, Axis]:
    if size == 1:
        return axis, SINGLE
    if is_fixed(axis):
        return fixed(size_of(axis) // size), fixed(size)
    heads, tails = list[Product](), list[Product]()
    for product in resolved(axis):
        head, tail = _product_without_tail(product, size)
        heads.append(head)
        tails.append(tail)
    for other in tails[1:]:
        tie((tails[0],), (other,))
    return tuple(heads), (tails[0],)


def _product_without_tail(product: Product, size: int) -> tuple[Product, Product]:
    head, tail = list(product), list[Units]()
    while head and width(tuple(tail)) < size:
        last, wanted = head.pop(), size // width(tuple(tail))
        if last.size > wanted:
            outer, last = factors(last, -(-last.size // wanted))
            head.append(outer)
        tail.insert(0, last)
    if width(tuple(tail)) != size:
        raise TraceError(f"an axis is taken apart into runs of {size}, across its parts")
    return tuple(head), tuple(tail)


def part(axis: Axis, start: int, stop: int) -> Axis:
    """The entries from `start` to `stop` along an axis; units are split where these lie inside."""
    if is_fixed(axis):
        return fixed(stop - start)
    found, position, rest = list[Product](), 0, resolved(axis)
    while rest:
        first = rest[0]
        cut = next((at - position for at in (start, stop) if position < at < position + width(first)), None)
        if cut is not None:
            rest = resolved((*split(first, cut), *rest[1:]))
            continue
        if start <= position and position + width(first) <= stop:
            found.append(first)
        position, rest = position + width(first), rest[1:]
    return tuple(found)


def joined(axes: Sequence[Axis]) -> Axis:
    """Axes one after the other."""
    return tuple(product for axis in axes for product in axis)


def padded(axis: Axis, before: int, after: int) -> Axis:
    """An axis between a constant before it and one after it: whatever permutes the constant leaves it alike."""
    if is_fixed(axis):
        return fixed(before + size_of(axis) + after)
    return joined([*([fresh(before)] if before else []), axis, *([fresh(after)] if after else [])])

"""What may be permuted along an axis: sums of products of units, unified as a network ties its axes together.

An axis is a sum (one after the other) of products (row-major) of `Units`. Flattened maps are a product of channels and
positions; channels that are padded with zeros, or concatenated, are a sum. Tying two axes unifies them as types are
unified: units are set equal, split, or fixed, so what is left at the end permutes freely.
"""

from collections.abc import Iterable
from itertools import pairwise
from math import prod

from closerlook.errors import UsageError


class TraceError(UsageError):
    """A network whose hidden units cannot be followed: the message names the layer and the operation."""


class Units:
    """`size` units that are permuted together; runs whose sizes are in `blocks` move as wholes."""

    def __init__(self, size: int, fixed: bool = False) -> None:
        self.size, self.fixed = size, fixed
        self.blocks: frozenset[int] = frozenset()
        self.bound: Axis | None = None  # what became of them, once they were tied to others or taken apart

    def fix(self) -> None:
        """Leave them in their order."""
        self.fixed, self.blocks = True, frozenset()

    def keep(self, blocks: Iterable[int]) -> None:
        """Allow only permutations that move runs of these sizes as wholes (and permute inside them)."""
        sizes = sorted({*self.blocks, *blocks} - {1, self.size})
        if any(large % small for small, large in pairwise([*sizes, self.size])):
            raise TraceError(f"groups of {' and of '.join(map(str, sizes))} among {self.size} units do not nest")
        self.blocks = frozenset() if self.fixed else frozenset(sizes)


Product = tuple[Units, ...]
Axis = tuple[Product, ...]
SINGLE: Axis = ((),)  # of one entry


def fresh(size: int, fixed: bool = False) -> Axis:
    """An axis of its own."""
    return ((Units(size, fixed),),) if size != 1 else SINGLE


def fixed(size: int) -> Axis:
    """An axis in its order."""
    return fresh(size, fixed=True)


def width(product: Product) -> int:
    """Number of entries of a product."""
    return prod(units.size for units in product)


def size_of(axis: Axis) -> int:
    """Number of entries along an axis."""
    return sum(map(width, axis))


def resolved(axis: Axis) -> Axis:
    """The axis in terms of units that are not bound to others."""
    found: list[Product] = []
    for product in axis:
        found += multiplied([((units,),) if units.bound is None else resolved(units.bound) for units in product])
    return tuple(found)


def multiplied(axes: Iterable[Axis]) -> Axis:
    """The product of axes, in row-major order."""
    total = SINGLE
    for axis in axes:
        if len(axis) == 1 or size_of(total) == 1:
            total = tuple((*first, *second) for first in total for second in axis)
        elif is_fixed(total):
            total = axis * size_of(total)
        else:
            raise TraceError("units of a concatenation or padding are the inner ones of a joined axis")
    return total


def is_fixed(axis: Axis) -> bool:
    """Whether nothing may be permuted along the axis."""
    return all(units.fixed for product in resolved(axis) for units in product)


def fix(axis: Axis) -> None:
    """Leave everything along the axis in its order."""
    for product in resolved(axis):
        for units in product:
            units.fix()


def tie(one: Axis, two: Axis) -> None:
    """Permute two axes alike."""
    if size_of(one) != size_of(two):
        raise TraceError(f"axes of {size_of(one)} and of {size_of(two)} units meet")
    left, right = resolved(one), resolved(two)
    while left:
        first, second = left[0], right[0]
        if width(first) > width(second):
            left = (*split(first, width(second)), *left[1:])
        elif width(first) < width(second):
            right = (*split(second, width(first)), *right[1:])
        else:
            _tie_products(first, second)
            left, right = left[1:], right[1:]
        left, right = resolved(left), resolved(right)  # what was taken apart may stand further on as well


def _tie_products(one: Product, two: Product) -> None:
    if is_fixed((one,)) or is_fixed((two,)):
        fix((one, two))
        return
    left, right = one, two
    while left and right:
        first, second = left[0], right[0]
        if first.size > second.size:
            left = (*factors(first, second.size), *left[1:])
        elif first.size < second.size:
            right = (*factors(second, first.size), *right[1:])
        else:
            _tie_units(first, second)
            left, right = left[1:], right[1:]
        (left,), (right,) = resolved((left,)), resolved((right,))


def _tie_units(one: Units, two: Units) -> None:
    if one is two:
        return
    if one.fixed or two.fixed:
        one.fix()
        two.fix()
        return
    one.keep(two.blocks)
    two.bound = ((one,),)


def split(product: Product, at: int) -> tuple[Product, Product]:
    """The first `at` entries of a product, and the others; what cannot be cut there is fixed."""
    first, *others = product
    cut, beside = divmod(at, width(tuple(others)))
    if beside or is_fixed((product,)):
        fix((product,))
        return fixed(at)[0], fixed(width(product) - at)[0]
    if any(cut % size for size in first.blocks):
        raise TraceError(f"a group of {max(first.blocks)} units is cut in two")
    parts = (*fresh(cut, first.fixed), *fresh(first.size - cut, first.fixed))
    for units in (units for part in parts for units in part):
        units.keep(size for size in first.blocks if size < units.size)
    first.bound = parts
    return (*parts[0], *others), (*parts[1], *others)


def factors(units: Units, outer: int) -> tuple[Units, Units]:
    """Units as the product of `outer` runs and of what is in each of them."""
    if units.size % outer:
        raise TraceError(f"{units.size} units meet groups of {outer}")
    parts = Units(outer, units.fixed), Units(units.size // outer, units.fixed)
    inner = parts[1].size
    for size in units.blocks - {inner}:
        if size > inner and size % inner == 0:
            parts[0].keep((size // inner,))
        elif inner % size == 0:
            parts[1].keep((size,))
        else:
            raise TraceError(f"groups of {size} and of {inner} among {units.size} units do not nest")
    units.bound = (parts,)
    return parts

"""Blocks of parameters: one per layer, or as the caller names them."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor

from closerlook.errors import UsageError

ROOT = "(model)"  # the block of parameters that the model itself owns
Blocks = Mapping[str, str | Sequence[str]]


def blocks_of(names: Sequence[str], per_block: bool | Blocks) -> dict[str, tuple[str, ...]]:
    """Names of parameters by block: for a bool by the layer that owns them, else by the patterns given.

    Raises
    ------
    UsageError
        A block has no parameter.

    Examples
    --------
    >>> blocks_of(["conv.weight", "conv.bias", "fc.weight"], True)
    {'conv': ('conv.weight', 'conv.bias'), 'fc': ('fc.weight',)}
    >>> blocks_of(["conv.weight", "conv.bias", "fc.weight"], {"deep": "fc.*"})
    {'deep': ('fc.weight',)}
    """
    if isinstance(per_block, bool):
        layers = dict.fromkeys(_layer(name) for name in names)
        return {layer: tuple(name for name in names if _layer(name) == layer) for layer in layers}
    found = {block: _matched(names, patterns) for block, patterns in per_block.items()}
    empty = [block for block, chosen in found.items() if not chosen]
    if empty or not found:
        asked = ", ".join(_listed(per_block[empty[0]])) if empty else ""
        missing = f"no trained parameter is in the block {empty[0]!r} ({asked})" if empty else "'blocks' names no block"
        raise UsageError(f"{missing}; there are {', '.join(names)}")
    return found


def dots(a: Tensor, b: Tensor, spans: Mapping[str, slice], blocks: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """``a_k . b_k`` of every block k, summed in float64."""
    every = {name: float(a[span].double() @ b[span].double()) for name, span in spans.items()}
    return {block: sum(every[name] for name in names) for block, names in blocks.items()}


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or ROOT


def _matched(names: Sequence[str], patterns: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in _listed(patterns)))


def _listed(patterns: str | Sequence[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)

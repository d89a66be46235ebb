"""Layers by name: wildcards, numbered calls, chosen outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch

from closerlook.errors import LayerError

ROOT = "(model)"  # the name of the whole model, whose own is empty
_WILD = frozenset("*?[")


@dataclass(frozen=True)
class Layer:
    """One call of one module, whose output is what is compared.

    `name` is the module's dotted name; ``#2`` follows for the second of several calls, ``:1`` for an output that was
    chosen from several. `shape` is that of the output for one batch, `parameters` their number in the module and all
    that is inside it. `same_as` names the layer whose output this one hands on unchanged; `problem` says why the
    output cannot be compared.
    """

    name: str
    module: str
    call: int
    calls: int
    output: str
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    parameters: int
    same_as: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Pattern:
    """``NAME[#CALL][:OUTPUT]``; the name may hold the wildcards ``*``, ``?`` and ``[...]``, and ``*`` crosses dots.

    Examples
    --------
    >>> Pattern.read("encoder.*.lstm#2:1.0")
    Pattern(text='encoder.*.lstm#2:1.0', call='encoder.*.lstm#2', output='1.0')
    """

    text: str
    call: str
    output: str

    @classmethod
    def read(cls, text: str) -> "Pattern":
        """The parts of a pattern."""
        call, _, output = text.partition(":")
        return cls(text, call, output)

    @property
    def is_wild(self) -> bool:
        """Whether it may match several layers."""
        return not _WILD.isdisjoint(self.call)

    def fits(self, module: str, call: int) -> bool:
        """Whether it matches this call of this module: ``relu`` matches every call of it, ``relu#2`` the second."""
        return fnmatchcase(module, self.call) or fnmatchcase(f"{module}#{call}", self.call)


def choose(layers: Sequence[Layer], patterns: Sequence[str]) -> tuple[Layer, ...]:
    """The layers that the patterns match, in the order of the forward pass.

    A pattern with wildcards leaves out what cannot be compared and, of several layers that hand on one tensor
    (a container and its last layer, dropout in eval mode, flatten), all but the first. A plain name gets what it names.

    Raises
    ------
    LayerError
        There is no pattern, one matches no layer (close names are given), or names one whose output cannot be compared.
    """
    check_patterns(patterns)
    named: set[str] = set()
    matched: set[str] = set()
    for pattern in map(Pattern.read, patterns):
        found = [each for each in layers if each.output == pattern.output and pattern.fits(each.module, each.call)]
        _check(pattern, found, layers)
        names = {each.name for each in found if each.problem is None}
        matched |= names
        named |= set() if pattern.is_wild else names
    return tuple(
        each for each in layers if each.name in named or (each.name in matched and each.same_as not in matched)
    )


def check_patterns(patterns: Sequence[str]) -> None:
    """Raise when patterns are no list of names; a string would be read letter by letter.

    Raises
    ------
    LayerError
        There is no pattern, or a string.
    """
    if isinstance(patterns, str) or not patterns:
        raise LayerError(f"layers are a list of names or patterns such as ['*relu*'], not {patterns!r}")


def _check(pattern: Pattern, found: Sequence[Layer], layers: Sequence[Layer]) -> None:
    if not found:
        raise LayerError(f"no layer matches {pattern.text!r}; {_hint(pattern.text, layers)}")
    problems = [each for each in found if each.problem is not None]
    if len(problems) == len(found) or (problems and not pattern.is_wild):
        raise LayerError(f"layer {problems[0].name} cannot be compared: {problems[0].problem}")
    for each in found:
        if each.problem is None and each.dtype is not None and torch.finfo(each.dtype).bits < 32:
            raise LayerError(
                f"layer {each.name} computes in {str(each.dtype).removeprefix('torch.')}, whose rounding counts as "
                "directions of its own; compare model.float() (a copy) on inputs in float32, without autocast inside"
            )


def _hint(text: str, layers: Sequence[Layer]) -> str:
    known = list(dict.fromkeys([each.name for each in layers] + [each.module for each in layers]))
    close = get_close_matches(text, known, n=4, cutoff=0.5)
    listed = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
    return (
        (f"did you mean {' or '.join(close)}?" if close else f"there is {listed}.")
        + " Only modules that are called have names: what a forward method computes with functions (relu, view, +) "
        "belongs to the module around it"
    )

"""What the units of a layer are: its output as a matrix [rows, units], by the name of a handling."""

from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

from torch import Tensor

from closerlook.errors import UsageError

Conv = Literal["mean", "positions", "flatten", "spectral"]
Tokens = Literal["mean", "positions", "first", "flatten"]


@dataclass(frozen=True)
class Handling:
    """How outputs with more than two dimensions become rows.

    ``conv``, for maps [n, c, h, w] (more trailing dimensions too): ``"mean"`` over space, [n, c]; ``"positions"`` as
    examples, [n h w, c]; ``"flatten"`` to units, [n, c h w]; ``"spectral"`` keeps the map for a comparison per spatial
    frequency. ``tokens``, for [n, l, d]: ``"mean"``, ``"positions"``, ``"flatten"`` likewise, ``"first"`` the first
    token.

    Raises
    ------
    UsageError
        An unknown name.

    Examples
    --------
    >>> import torch
    >>> Handling("positions").rows(torch.zeros(5, 3, 4, 4)).shape, Handling().units((5, 3, 4, 4))
    (torch.Size([80, 3]), 3)
    """

    conv: Conv = "mean"
    tokens: Tokens = "mean"

    def __post_init__(self) -> None:
        for what, value, known in (("conv", self.conv, Conv), ("tokens", self.tokens, Tokens)):
            if value not in get_args(known):
                raise UsageError(f"unknown {what} handling {value!r}; choose one of {', '.join(get_args(known))}")

    def rows(self, output: Tensor) -> Tensor:
        """Rows [m, p] of an output [n, ...], never a view of it; with ``"spectral"`` maps [n, c, h, w]."""
        made = self._tokens(output) if output.ndim == 3 else self._maps(output)
        # An operation in place after the hook must not reach what was captured.
        return made.clone() if made.untyped_storage().data_ptr() == output.untyped_storage().data_ptr() else made

    def units(self, shape: tuple[int, ...]) -> int:
        """Width p of the rows of an output of this shape."""
        if self.of(shape) in ("flatten", None):
            return prod(shape[1:])
        return shape[2] if len(shape) == 3 else shape[1]

    def form(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one row of an output of this shape."""
        return shape[1:] if self.of(shape) == "spectral" else (self.units(shape),)

    def positions(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The places within one example that count as rows of their own; () where an example is one row."""
        places = shape[1:2] if len(shape) == 3 else shape[2:]
        return places if self.of(shape) == "positions" and prod(places) > 1 else ()

    def of(self, shape: tuple[int, ...]) -> str | None:
        """The name of what happens to an output of this shape; None when it is [n, p] already."""
        if len(shape) <= 2:
            return None
        return self.tokens if len(shape) == 3 else self.conv

    def _tokens(self, output: Tensor) -> Tensor:
        if self.tokens == "mean":
            return output.double().mean(1).to(output.dtype)
        if self.tokens == "first":
            return output[:, 0]
        return output.flatten(0, 1) if self.tokens == "positions" else output.flatten(1)

    def _maps(self, output: Tensor) -> Tensor:
        if output.ndim <= 2:
            return output if output.ndim == 2 else output.reshape(-1, 1)
        if self.conv == "mean":
            return output.double().flatten(2).mean(2).to(output.dtype)
        if self.conv == "positions":
            return output.flatten(2).transpose(1, 2).flatten(0, 1)
        return output if self.conv == "spectral" else output.flatten(1)

"""How far every block moves in a step, and where its numbers stop being finite."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.training.observers import moved

Parameters = Mapping[str, Sequence[nn.Parameter]]
Copies = Mapping[str, Sequence[Tensor]]


class Moves:
    """Looks at the blocks before and after each step; keeps the weights of the start and those before the step."""

    def __init__(self, blocks: Parameters) -> None:
        self._blocks = blocks
        self._start = self._before = self._copy()

    def before(self) -> None:
        """Keep the weights as they are."""
        self._before = self._copy()

    def after(self) -> dict[str, dict[str, float | None]]:
        """Per block the numbers of `LayerTrace`: gradient, update, angle, distance, similarity."""
        return {block: moved(own, self._before[block], self._start[block]) for block, own in self._blocks.items()}

    def not_finite(self, row: Mapping[str, Mapping[str, float | None]]) -> list[dict[str, Any]]:
        """The blocks whose gradients or weights are NaN or infinite, after a row of `after`."""
        found = []
        for block, numbers in row.items():
            if numbers["gradient"] is None:
                found.append({"block": block, "what": "gradient"})
            # A distance is missing as well where a block began at zero: only then its entries are looked at.
            if numbers["distance"] is None and not all(_finite(value) for value in self._blocks[block]):
                found.append({"block": block, "what": "weights"})
        return found

    def _copy(self) -> Copies:
        return {block: [value.detach().clone() for value in own] for block, own in self._blocks.items()}


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value.detach()).all())

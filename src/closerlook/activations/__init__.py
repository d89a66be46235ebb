"""Activations of layers by name: hooks that leave nothing behind, and what the units of a layer are."""

from closerlook.activations.listing import layers, units_of
from closerlook.activations.names import Layer, choose
from closerlook.activations.reading import Reader, reading
from closerlook.activations.rows import Conv, Handling, Tokens
from closerlook.activations.stored import Activations, activations

__all__ = [
    "Activations", "Conv", "Handling", "Layer", "Reader", "Tokens", "activations", "choose", "layers", "reading",
    "units_of",
]  # fmt: skip

"""Data in memory: sources by name, splits by seed, batches that can be made again. Only this room looks for files."""

from closerlook.data.augment import Augment, CropFlip
from closerlook.data.batches import TensorBatches
from closerlook.data.custom_parts import Loaders, custom, loaders
from closerlook.data.parts import Parts, split
from closerlook.data.registry import SOURCES, describe, fetch, load
from closerlook.data.soft_labels import as_soft_as
from closerlook.data.source import Pair, Source
from closerlook.data.within_class import permuted_within_class

__all__ = [
    "SOURCES",
    "Augment",
    "CropFlip",
    "Loaders",
    "Pair",
    "Parts",
    "Source",
    "TensorBatches",
    "as_soft_as",
    "custom",
    "describe",
    "fetch",
    "load",
    "loaders",
    "permuted_within_class",
    "split",
]

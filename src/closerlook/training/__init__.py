"""One loop for everything that is trained: networks, and the free points of a curve."""

from closerlook.training.network import TrainResult, train
from closerlook.training.observers import LayerTrace

__all__ = ["LayerTrace", "TrainResult", "train"]

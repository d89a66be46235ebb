"""One loop for everything that is trained: networks, and the free points of a curve."""

from closerlook.training.network import TrainResult, train

__all__ = ["TrainResult", "train"]

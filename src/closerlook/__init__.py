"""Why does this training heuristic work on my model: curves, surfaces and controlled studies for PyTorch."""

__version__ = "0.1.0"

"""closerlook: why does this training heuristic work on my model?"""

__version__ = "0.1.0"

"""The graph of steps on an executor."""

from closerlook.launch.graph import Event, Graph, launch
from closerlook.launch.pool import pool
from closerlook.launch.progress import Progress

__all__ = ["Event", "Graph", "Progress", "launch", "pool"]

"""One function per figure: plain arrays in, a matplotlib Axes in and out, every axis with its unit."""

from closerlook.figures.blocks import block_shares, updates
from closerlook.figures.causes import causal_map
from closerlook.figures.curving import along, embedding, one_legend_for
from closerlook.figures.dots import gains
from closerlook.figures.epochs import accuracy, learning_rate, norms
from closerlook.figures.estimates import estimates
from closerlook.figures.heat_maps import heat_map
from closerlook.figures.interactive import interactive
from closerlook.figures.layers import layer_profile
from closerlook.figures.matrices import matrix
from closerlook.figures.parts import forest
from closerlook.figures.paths import aligned, path, segments
from closerlook.figures.phases import phase_diagram
from closerlook.figures.planes import surface
from closerlook.figures.setups import setups
from closerlook.figures.sharpness import sharpness_trace
from closerlook.figures.style import panels
from closerlook.figures.svg import to_svg
from closerlook.figures.trajectories import trajectory

__all__ = [
    "accuracy", "aligned", "along", "block_shares", "causal_map", "embedding", "estimates", "forest", "gains",
    "heat_map", "interactive", "layer_profile", "learning_rate", "matrix", "norms", "one_legend_for", "panels",
    "path", "phase_diagram", "segments", "setups", "sharpness_trace", "surface", "to_svg", "trajectory", "updates",
]  # fmt: skip

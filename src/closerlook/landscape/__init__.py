"""Mode connectivity and loss surfaces: subspaces of weight space, trained curves, metrics read on them."""

from closerlook.landscape.barrier import BarrierMatrix, barrier, barrier_matrix
from closerlook.landscape.connect import connect
from closerlook.landscape.directions import Directions, hessian_directions, random_directions
from closerlook.landscape.heights import Barrier
from closerlook.landscape.pivots import refine_chain
from closerlook.landscape.profile import Profile, profile
from closerlook.landscape.reference import load_curve, read_curve_npz
from closerlook.landscape.subspace import Subspace, bezier, line, plane, polychain, simplex
from closerlook.landscape.surface import Mark, Surface, surface
from closerlook.landscape.trajectory import Trajectory, trajectory

__all__ = [
    "Barrier", "BarrierMatrix", "Directions", "Mark", "Profile", "Subspace", "Surface", "Trajectory", "barrier",
    "barrier_matrix", "bezier", "connect", "hessian_directions", "line", "load_curve", "plane", "polychain",
    "profile", "random_directions", "read_curve_npz", "refine_chain", "simplex", "surface", "trajectory",
]  # fmt: skip

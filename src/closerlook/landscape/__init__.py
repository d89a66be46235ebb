"""Mode connectivity and loss surfaces: subspaces of weight space, trained curves, metrics read on them."""

from closerlook.landscape.barrier import BarrierMatrix, barrier, barrier_matrix
from closerlook.landscape.connect import connect
from closerlook.landscape.heights import Barrier
from closerlook.landscape.pivots import refine_chain
from closerlook.landscape.profile import Profile, profile
from closerlook.landscape.reference import load_curve, read_curve_npz
from closerlook.landscape.subspace import Subspace, bezier, line, plane, polychain, simplex
from closerlook.landscape.surface import Mark, Surface, surface

__all__ = [
    "Barrier", "BarrierMatrix", "Mark", "Profile", "Subspace", "Surface", "barrier", "barrier_matrix", "bezier",
    "connect", "line", "load_curve", "plane", "polychain", "profile", "read_curve_npz", "refine_chain", "simplex",
    "surface",
]  # fmt: skip

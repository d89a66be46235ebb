"""Curvature of the loss at given weights, read with products of the Hessian and forward passes alone.

Sharpness against the stability threshold of the optimizer in use, the learning rate at which a step stops to help,
the trace of the Hessian, the noise of the gradient.
"""

from closerlook.curvature.hessian import HessianOperator
from closerlook.curvature.modes import reading
from closerlook.curvature.sharpness import Sharpness, sharpness, top_eigenvalues

__all__ = ["HessianOperator", "Sharpness", "reading", "sharpness", "top_eigenvalues"]

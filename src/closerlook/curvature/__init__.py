"""Curvature of the loss at given weights, read with products of the Hessian and forward passes alone.

Sharpness against the stability threshold of the optimizer in use, the learning rate at which a step stops to help,
the trace of the Hessian, the noise of the gradient.
"""

from closerlook.curvature.critical_lr import CriticalLR, critical_lr
from closerlook.curvature.hessian import HessianOperator
from closerlook.curvature.lanczos import Ritz, lanczos
from closerlook.curvature.modes import BatchNorm, reading
from closerlook.curvature.noise_scale import NoiseScale, noise_scale
from closerlook.curvature.sharpness import Sharpness, sharpness, top_eigenvalues
from closerlook.curvature.thresholds import stability_threshold
from closerlook.curvature.trace import Trace, hessian_trace
from closerlook.curvature.while_training import SharpnessTrace

__all__ = [
    "BatchNorm", "CriticalLR", "HessianOperator", "NoiseScale", "Ritz", "Sharpness", "SharpnessTrace", "Trace",
    "critical_lr", "hessian_trace", "lanczos", "noise_scale", "reading", "sharpness", "stability_threshold",
    "top_eigenvalues",
]  # fmt: skip

"""Linear probes: what can be read from each layer by a linear map, the labels or what a teacher answers."""

from closerlook.probes.layers import probes
from closerlook.probes.result import Probe, Probes

__all__ = ["Probe", "Probes", "probes"]

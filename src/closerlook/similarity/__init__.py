"""Similarity of representations: every linear measure from one streaming pass, with its chance level."""

from closerlook.similarity.cca import Directions, cca, directions
from closerlook.similarity.cka import cka
from closerlook.similarity.compare import compare
from closerlook.similarity.comparison import Comparison
from closerlook.similarity.measures import measure
from closerlook.similarity.moments import GridMoments, Moments
from closerlook.similarity.pair import Layer, Pair
from closerlook.similarity.procrustes import procrustes
from closerlook.similarity.pwcca import pwcca
from closerlook.similarity.result import Similarity
from closerlook.similarity.spectral import SpectralMoments, spectral_cca
from closerlook.similarity.svcca import SvccaCurve, svcca, svcca_curve

__all__ = [
    "Comparison", "Directions", "GridMoments", "Layer", "Moments", "Pair", "Similarity", "SpectralMoments",
    "SvccaCurve", "cca", "cka", "compare", "directions", "measure", "procrustes", "pwcca", "spectral_cca", "svcca",
    "svcca_curve",
]  # fmt: skip

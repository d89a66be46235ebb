"""Similarity of representations: every linear measure from one streaming pass, with its chance level."""

from closerlook.similarity.cca import Directions, cca, directions
from closerlook.similarity.cka import cka
from closerlook.similarity.compare import compare
from closerlook.similarity.comparison import Comparison
from closerlook.similarity.declared import DECLARED, Declaration
from closerlook.similarity.jackknife import Interval, jackknife
from closerlook.similarity.kernel import rbf_cka
from closerlook.similarity.measures import chosen, measure
from closerlook.similarity.moments import GridMoments, Moments
from closerlook.similarity.pair import Layer, Pair
from closerlook.similarity.permutation import PermutationTest, StepwiseTest, cca_permutation_test, permutation_test
from closerlook.similarity.procrustes import procrustes
from closerlook.similarity.pwcca import pwcca
from closerlook.similarity.result import Similarity
from closerlook.similarity.spectral import SpectralMoments, spectral_cca
from closerlook.similarity.svcca import SvccaCurve, svcca, svcca_curve

__all__ = [
    "DECLARED",
    "Comparison",
    "Declaration",
    "Directions",
    "GridMoments",
    "Interval",
    "Layer",
    "Moments",
    "Pair",
    "PermutationTest",
    "Similarity",
    "SpectralMoments",
    "StepwiseTest",
    "SvccaCurve",
    "cca",
    "cca_permutation_test",
    "chosen",
    "cka",
    "compare",
    "directions",
    "jackknife",
    "measure",
    "permutation_test",
    "procrustes",
    "pwcca",
    "rbf_cka",
    "spectral_cca",
    "svcca",
    "svcca_curve",
]  # fmt: skip

"""What each measure declares: to which maps of a side it is blind, and where its chance level comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Map = Literal["translation", "scaling", "orthogonal", "invertible", "circular shift", "circular filter"]

_RIGID: frozenset[Map] = frozenset({"translation", "scaling", "orthogonal"})
_LINEAR: frozenset[Map] = _RIGID | {"invertible"}


@dataclass(frozen=True)
class Declaration:
    """The maps of x, and of y, that leave the value as it is; more is more similar, 1 is the most, for every measure.

    ``translation``: a constant is added to each unit. ``scaling``: all units are multiplied by one number.
    ``orthogonal``, ``invertible``: linear maps of the units (for maps, of the channels). ``circular shift``,
    ``circular filter``: of space, a filter with no zero in its transform.
    """

    x: frozenset[Map]
    y: frozenset[Map]
    chance: str
    direction: str = "more is more similar"


DECLARED: Mapping[str, Declaration] = {
    "cca": Declaration(_LINEAR, _LINEAR, "mean of rho: simulated from the ranks; of its square: exact"),
    "svcca": Declaration(_RIGID, _RIGID, "as cca, from the directions kept"),
    "pwcca:x": Declaration(frozenset({"translation", "scaling"}), _LINEAR, "that of the mean of rho"),
    "pwcca:y": Declaration(_LINEAR, frozenset({"translation", "scaling"}), "that of the mean of rho"),
    "pwcca:mean": Declaration(
        frozenset({"translation", "scaling"}), frozenset({"translation", "scaling"}), "that of the mean of rho"
    ),
    "cka": Declaration(_RIGID, _RIGID, "exact: 0"),
    "cka:biased": Declaration(_RIGID, _RIGID, "exact, from the covariances"),
    "procrustes": Declaration(_RIGID, _RIGID, "simulated from the spectra"),
    "rbf_cka": Declaration(_RIGID, _RIGID, "exact: 0; biased: from the kernels"),
    "spectral_cca": Declaration(
        _LINEAR | {"circular shift", "circular filter"}, _LINEAR | {"circular shift", "circular filter"},
        "as cca, the mean over frequencies",
    ),
}  # fmt: skip
"""By the name that `closerlook.similarity.measure` reads."""

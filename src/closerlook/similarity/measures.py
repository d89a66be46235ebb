"""Measures by name, so that a recipe and a command line can say which."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from closerlook.errors import UsageError
from closerlook.similarity.cca import Summary, cca
from closerlook.similarity.cka import cka
from closerlook.similarity.procrustes import procrustes
from closerlook.similarity.pwcca import pwcca
from closerlook.similarity.result import Similarity
from closerlook.similarity.spectral import spectral_cca
from closerlook.similarity.svcca import svcca

Measure = Callable[[Any], Similarity]  # of a Pair, or of SpectralMoments
_R2: Mapping[str, Any] = {"summary": "r2"}
_WORDS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "cca": {"r2": _R2},
    "svcca": {"r2": _R2},
    "pwcca": {side: {"side": side} for side in ("x", "y", "mean")},
    "cka": {"biased": {"debiased": False}},
    "procrustes": {},
}
_CHECKED = ("cca", "svcca", "pwcca")  # these refuse too few examples unless told to go on


def measure(name: str, insist: bool = False, seed: int = 0) -> Measure:
    """The measure of a name such as ``"cka"``, ``"svcca:20,r2"`` or ``"cka:biased"``.

    After a colon: ``r2`` (cca, svcca) the mean of squared correlations in place of the mean; a whole number (svcca) of
    directions, the same for both sides; a share below 1 (svcca) of the variance; ``x``, ``y``, ``mean`` (pwcca) the
    side that weighs; ``biased`` (cka).

    Raises
    ------
    UsageError
        An unknown measure or word; what there is is listed.

    Examples
    --------
    >>> import torch
    >>> from closerlook.similarity.moments import Moments
    >>> moments = Moments()
    >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    >>> moments.update(x, x[:, :3])
    >>> measure("svcca:3,r2")(moments.pair()).conventions
    {'summary': 'r2', 'directions': 3}
    """
    kind, _, words = name.partition(":")
    functions: Mapping[str, Callable[..., Similarity]] = {
        "cca": cca, "svcca": svcca, "pwcca": pwcca, "cka": cka, "procrustes": procrustes,
    }  # fmt: skip
    if kind not in functions:
        known = ", ".join(functions)
        raise UsageError(f"no measure {kind!r}; there is {known}, and rbf_cka(x, y) of the examples themselves")
    options: dict[str, Any] = {} if kind == "cka" else {"seed": seed}
    if kind in _CHECKED:
        options["insist"] = insist
    for word in filter(None, words.split(",")):
        options |= _option(kind, word.strip(), name)
    return partial(functions[kind], **options)


def chosen(names: Sequence[str], spectral: bool = False, insist: bool = False, seed: int = 0) -> dict[str, Measure]:
    """The measures of a list of names; of maps that are compared per spatial frequency if `spectral`.

    Raises
    ------
    UsageError
        No name, an unknown one, or one that is not known per spatial frequency.

    Examples
    --------
    >>> list(chosen(["cca", "cca:r2"], spectral=True))
    ['cca', 'cca:r2']
    """
    if not names or isinstance(names, str):
        raise UsageError(f"measures are a list of names such as ['cca', 'cka'], not {names!r}")
    if not spectral:
        return {name: measure(name, insist, seed) for name in names}
    known: Mapping[str, Summary] = {"cca": "mean", "cca:r2": "r2"}
    other = [name for name in names if name not in known]
    if other:
        raise UsageError(
            f"conv='spectral' has the measures {' and '.join(known)}, not {other[0]!r}; name one of those, or "
            "take another conv"
        )
    return {name: partial(spectral_cca, summary=known[name], insist=insist, seed=seed) for name in names}


def _option(kind: str, word: str, name: str) -> Mapping[str, Any]:
    if word in _WORDS[kind]:
        return _WORDS[kind][word]
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if kind == "svcca" and number > 0 and (number < 1 or number.is_integer()):
        return {"variance": number} if number < 1 else {"directions": int(number)}
    known = [*_WORDS[kind], *(("a number of directions", "a share of the variance") if kind == "svcca" else ())]
    raise UsageError(f"cannot read {word!r} in the measure {name!r}; {kind} takes {', '.join(known) or 'no words'}")

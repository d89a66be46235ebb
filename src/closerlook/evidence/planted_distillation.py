"""Truths to try the distillation rule with, whose measures scatter independently or as one."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from closerlook.evidence.rule import Rule
from closerlook.evidence.truths import Truth, spread

_CLAIM = {"E0": 20.0, "E1": 20.0, "C1": 20.0, "C2": 20.0, "C3": 20.0, "C4": 20.0}


def distillation(rule: Rule) -> Iterator[Truth]:
    """Effects in standard deviations from the margins; three measures at one margin may scatter either way.

    No promise: measures of one contrast of which one is clear and two are at the margin, where either of the two
    suffices for the answer.
    """
    yield from _clear(rule)
    yield from _at_margins(rule)
    split = {"C1[cca]": -20.0, "C1[cka]": 0.0, "C1[procrustes]": 0.0}
    yield from _both(_truth(rule, "C1 far below in one measure, at the margin in two", split))
    opposed = {"C1[cca]": -20.0, "C1[cka]": 20.0, "C1[procrustes]": 20.0}
    yield _truth(rule, "C1 far below in one measure, far above in two", opposed)
    split["C1[cca]"] = 20.0
    yield from _both(_truth(rule, "C1 far above in one measure, at the margin in two", split, bounded=False))


def _clear(rule: Rule) -> Iterator[Truth]:
    near = {name: size / 10 for name, size in _CLAIM.items()}
    yield from _both(_truth(rule, "as the claim says, 2 SD", near, wrong=("contradicted",)))
    shallow = near | {"C1": -2.0, "C4": -2.0}
    yield from _both(_truth(rule, "similarity and recovery favour the shallower half, 2 SD", shallow, ("supported",)))
    yield from _both(_truth(rule, "similarity favours the shallower half, 2 SD", near | {"C1": -2.0}, ("supported",)))
    yield _truth(rule, "recovery favours the shallower half, 2 SD", {"C4": -2.0}, ("supported",))
    yield _truth(rule, "deep, but not specific to this teacher", {"C2": -20.0})
    yield _truth(rule, "deep, but any soft target does it", {"C3": -20.0})
    yield _truth(rule, "nothing to teach, the rest as the claim says", {"E0": -20.0})


def _at_margins(rule: Rule) -> Iterator[Truth]:
    yield from _both(_truth(rule, "every part at its margin", dict.fromkeys(_CLAIM, 0.0)))
    for one in ("E0", "E1", "C4"):
        yield _truth(rule, _placed(one), {one: 0.0})
    for at in (("C1",), ("C2",), ("C3",), ("C1", "C4")):
        yield from _both(_truth(rule, _placed(*at), dict.fromkeys(at, 0.0)))
    for first in ("E0", "E1"):
        yield _truth(rule, f"{first} at the margin, C1 and C4 far below", {first: 0.0, "C1": -20.0, "C4": -20.0})


def _placed(*at: str) -> str:
    return f"{' and '.join(at)} at the margin, the rest far, as the claim says"


def _both(truth: Truth) -> Iterator[Truth]:
    yield truth
    yield replace(truth, name=f"{truth.name}; measures as one", together=True)


def _truth(rule: Rule, name: str, sizes: Mapping[str, float], wrong: Any = Truth.wrong, **more: Any) -> Truth:
    """Truth with the claim's effects but for `sizes`, by question or by part, in standard deviations."""
    placed = _CLAIM | dict(sizes)
    effects = {
        part.name: part.margin
        + placed.get(part.name, placed.get(part.name.partition("[")[0], 0.0)) * spread(part.quantity)
        for part in rule.parts
    }
    return Truth(name, effects, wrong, **more)

"""Truths to try the rules with: clear ones, their margins one by one, and those that a rule makes no promise for."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from closerlook.evidence.planted_distillation import distillation
from closerlook.evidence.planted_resilience import resilience
from closerlook.evidence.rule import Rule
from closerlook.evidence.truths import ALL, Truth, spread

CLAIM = {"N": 0.0, "W": 1.0, "WD": 1.0, "WS": 0.0, "P": 0.0}  # shares of runs that train


def planted(rule: Rule) -> Iterator[Truth]:
    """Truths that belong to one of the rules of closerlook."""
    yield from _PLANTED[rule.name](rule)


def _restarts(rule: Rule) -> Iterator[Truth]:
    """Effects of R over the other arms.

    No promise: no gain over either baseline while E1 and E2 hold, and E0 and E3 both at the margin (what E0 says then
    turns the verdict), and outcomes that are all or nothing (a t interval assumes scatter).
    """
    margins = {part.name: part.margin for part in rule.parts}
    far = {part.name: part.margin + 20 * spread(part.quantity) for part in rule.parts}
    clear = {part.name: part.margin + 2 * spread(part.quantity) for part in rule.parts}
    yield Truth("effect: every part 2 SD above its margin", clear, wrong=("supported",))
    opposite = {part.name: -2 * spread(part.quantity) for part in rule.parts}
    yield Truth("opposite: every effect 2 SD below zero", opposite, wrong=("contradicted",))
    yield Truth("none: every effect zero", dict.fromkeys(margins, 0.0), wrong=("contradicted",))
    yield Truth("every part at its margin", margins)
    for at in (("E1",), ("E2",), ("E3",), ("E1", "E3")):
        name = f"{' and '.join(at)} at the margin, the rest far above"
        yield Truth(name, far | {part: margins[part] for part in at})
    idle = far | {"E0": 0.0, "E3": 0.0}
    yield Truth("E0 and E3 zero, E1 at the margin", idle | {"E1": margins["E1"]}, wrong=("contradicted",))
    yield Truth("E0 and E3 zero, E1 and E2 far above", idle, wrong=("supported",), bounded=False)
    corner = far | {"E0": margins["E0"], "E3": margins["E3"]}
    yield Truth("E0 and E3 at the margin, E1 and E2 far above", corner, bounded=False)
    yield Truth("all or nothing, every part at its margin", margins, all_or_nothing=True, bounded=False)


def _warmup(rule: Rule) -> Iterator[Truth]:
    """Which arms rescue training, in standard deviations from the margins, and as shares of runs that train.

    No promise: both parts that can contradict, or several parts, at their margins while outcomes are all or nothing.
    """
    claim = {"W": 20.0, "WD": 20.0, "WS": -20.0, "P": -20.0}
    near = {arm: size / 10 for arm, size in claim.items()}
    yield Truth("only the deep block rescues, 2 SD", _sized(rule, near), wrong=("contradicted",))
    for name, changes in (
        ("only the rest rescues, 2 SD", {"WD": -2.0, "WS": 2.0}),
        ("every arm rescues, 2 SD", {"WS": 2.0, "P": 2.0}),
        ("no arm rescues, 2 SD", {"WD": -2.0}),
    ):
        yield Truth(name, _sized(rule, near | changes), wrong=("supported",))
    yield Truth("the deep block and the random set rescue", _sized(rule, claim | {"P": 20.0}))
    yield Truth("every part at its margin", _sized(rule, dict.fromkeys(claim, 0.0)))
    for at in (("W",), ("WD",), ("WS",), ("P",), ("WD", "WS")):
        name = f"{' and '.join(at)} at the margin, the rest far, as the claim says"
        yield Truth(name, _sized(rule, claim | dict.fromkeys(at, 0.0)))
    yield Truth("no arm rescues, E0 at the margin", _sized(rule, claim | {"W": 0.0, "WD": -20.0}))
    yield Truth("no instability, the rest as the claim says", _sized(rule, claim | {"W": -10.0}))
    yield from _rescued(rule)


def _warmup_small(rule: Rule) -> Iterator[Truth]:
    """The same, and the corner in which a reading against the middle of N and W errs most."""
    yield from _warmup(rule)
    name = "all or nothing: N in half of the runs, WD in 75 %, the rest as the claim says"
    yield trains(rule, name, CLAIM | {"N": 0.5, "WD": 0.75}, bounded=False)


def _sized(rule: Rule, sizes: Mapping[str, float]) -> dict[str, float]:
    """Effects of every arm in standard deviations from its margin."""
    return {part.name: part.margin + sizes.get(part.arm, 0.0) * spread(part.quantity) for part in rule.parts}


def _rescued(rule: Rule) -> Iterator[Truth]:
    """Runs that train or fail: N never trains and W always, unless said otherwise."""
    often = {"N": 0.1, "W": 0.9, "WD": 0.9, "WS": 0.1, "P": 0.1}
    name = "all or nothing: N, WS, P train in 10 % of the runs, W, WD in 90 %"
    yield trains(rule, name, often, wrong=("contradicted",))
    for at in ("WD", "WS", "P"):
        yield trains(rule, f"all or nothing: {at} in half of the runs, the rest as the claim says", CLAIM | {at: 0.5})
    half = CLAIM | {"WD": 0.5, "WS": 0.5}
    yield trains(rule, "all or nothing: WD and WS in half of the runs", half, bounded=False)


def trains(rule: Rule, name: str, shares: Mapping[str, float], **more: Any) -> Truth:
    """Truth in which each arm of the warmup rule trains in a share of its runs; `more` are fields of the truth."""
    effects = {}
    for part in rule.parts:
        below = [shares[arm] for arm in part.baselines]
        difference = shares.get(part.arm, 0.5) - (sum(below) / len(below) if below else 0.0)
        effects[part.name] = ALL[part.quantity] * difference
    return Truth(name, effects, all_or_nothing=True, best=shares["W"], **more)


_PLANTED: Mapping[str, Callable[[Rule], Iterator[Truth]]] = {
    "restarts": _restarts, "restarts-small": _restarts, "warmup": _warmup, "warmup-small": _warmup_small,
    "distillation": distillation, "distillation-small": distillation,
    "resilience": resilience,
}  # fmt: skip

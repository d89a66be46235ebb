"""Truths to try the resilience rule with: barriers that scatter, that cannot be negative, that are there or not."""

from collections.abc import Iterator, Mapping
from typing import Any

from closerlook.evidence.rule import Rule
from closerlook.evidence.truths import ALL, Truth, spread

_QUANTITY = "curve_barrier"
_MODES = "ABCDEF"
_CLAIM = dict.fromkeys(("G'", *_MODES), -20.0)


def resilience(rule: Rule) -> Iterator[Truth]:
    """Effects in standard deviations from the margins, and shares of curves that stay open.

    No promise: curves that close in some seeds and stay open in others, where three or five that close are not rare
    enough, and barriers whose scatter is skewed, so that most seeds lie below the mean.
    """
    yield from _clear(rule)
    yield from _at_margins(rule)
    yield from _open(rule)
    yield from _skewed(rule)


def _clear(rule: Rule) -> Iterator[Truth]:
    near = dict.fromkeys(_CLAIM, -2.0)
    yield _truth(rule, "every curve closes, 2 SD", near, wrong=("contradicted",))
    yield _truth(rule, "one curve stays open, 2 SD", near | {"A": 2.0}, wrong=("supported",))
    yield _truth(rule, "every curve but that to G' stays open, 2 SD", dict.fromkeys(_MODES, 2.0), wrong=("supported",))
    yield _truth(rule, "no curve closes, not even that to G'", {"G'": 20.0})


def _at_margins(rule: Rule) -> Iterator[Truth]:
    rest = "at the margin, the rest far, as the claim says"
    yield _truth(rule, "every part at its margin", dict.fromkeys(_CLAIM, 0.0))
    for at in (("G'",), ("A",), ("A", "B")):
        names = " and ".join("b(G')" if arm == "G'" else f"D({arm})" for arm in at)
        yield _truth(rule, f"{names} {rest}", dict.fromkeys(at, 0.0))
    yield _truth(rule, f"every D {rest}", dict.fromkeys(_MODES, 0.0))
    yield _truth(rule, "D(A) at the margin, the rest far, b(G') far above", {"G'": 20.0, "A": 0.0})


def _open(rule: Rule) -> Iterator[Truth]:
    """Barriers that are exactly zero or 30 points; with noise, as read ones are, within tenths of a point of either."""
    closed = dict.fromkeys(_CLAIM, 0.0)
    yield _there(rule, "all or nothing: every curve closes", closed, wrong=("contradicted",))
    one = "all or nothing: one curve stays open in half of the seeds"
    yield _there(rule, one, closed | {"A": 0.5}, wrong=("supported",))
    yield _there(rule, "all or nothing: that to G' stays open in half of the seeds", closed | {"G'": 0.5})
    yield _there(rule, "all or nothing: every curve stays open in half of the seeds", dict.fromkeys(_CLAIM, 0.5))
    noisy = {"noise": 0.2, "wrong": ("supported",)}
    yield _there(rule, "the same with noise: every curve closes", closed, noise=0.2, wrong=("contradicted",))
    for share, words in ((0.9, "nine of ten"), (0.5, "half of the"), (0.1, "a tenth of the")):
        name = f"the same with noise: one curve stays open in {words} seeds"
        yield _there(rule, name, closed | {"A": share}, bounded=share > 0.5, **noisy)


def _skewed(rule: Rule) -> Iterator[Truth]:
    """Barriers that scatter exponentially, with a mean of 0.2 points but for one."""
    margins = {part.name: part.margin for part in rule.parts}
    low = dict.fromkeys(margins, 0.0) | {"b(G')": 0.1 * margins["b(G')"]}
    name = "skewed: barriers of 0.2 points in the mean"
    yield Truth(name, low, wrong=("contradicted",), skewed=True)
    at = low | {"D(A)": margins["D(A)"]}
    yield Truth("skewed: D(A) at the margin, the rest as before", at, skewed=True, bounded=False)


def _truth(rule: Rule, name: str, sizes: Mapping[str, float], wrong: Any = Truth.wrong) -> Truth:
    """Truth with the claim's effects but for `sizes`, by arm, in standard deviations from the margin."""
    placed = _CLAIM | dict(sizes)
    return Truth(name, {part.name: part.margin + placed[part.arm] * spread(_QUANTITY) for part in rule.parts}, wrong)


def _there(rule: Rule, name: str, shares: Mapping[str, float], **more: Any) -> Truth:
    """Truth in which each arm's curve stays open in a share of the seeds; `more` are fields of the truth."""
    effects = {
        part.name: ALL[_QUANTITY] * (shares[part.arm] - sum(shares[arm] for arm in part.baselines))
        for part in rule.parts
    }
    return Truth(name, effects, all_or_nothing=True, **more)

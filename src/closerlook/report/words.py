"""How values read in a report: numbers, durations, answers, and a verdict's parts with nothing missing."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from closerlook.figures.parts import SIGNS

MISSING = "–"
_MINUS = "\N{MINUS SIGN}"
_ROUNDING = 1e-14  # what is left where two equal numbers of order 1 were subtracted
_VERDICTS = {"supported": "✓", "contradicted": "✕", "not decided": "?", "numbers only": "#"}
_SETTINGS = {
    None: "how it was chosen is not stated",
    "tuned": "tuned (chosen by the baseline's validation accuracy on other seeds)",
    "demonstration": "demonstration (chosen because the effect shows there)",
}
_OPTIONAL = {
    "question": "", "unit": "", "effect": None, "low": None, "high": None, "margin": None, "answer": "open", "n": None,
    "smallest_decidable": None,
}  # fmt: skip


def is_number(value: object) -> bool:
    """Tell whether `value` is a number (a truth value is none)."""
    return isinstance(value, Real) and not isinstance(value, bool)


def shown(value: object, digits: int = 4) -> str:
    """Return a value as text: floats to `digits` significant digits, nothing known as a dash.

    Examples
    --------
    >>> shown(0.123456), shown(-3), shown(None), shown(True)
    ('0.1235', '−3', '–', 'yes')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Real):
        return _shown_number(value, digits)
    if isinstance(value, list | tuple):
        return ", ".join(shown(item, digits) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {shown(item, digits)}" for key, item in value.items())
    return str(value)


def _shown_number(value: Real, digits: int) -> str:
    if isinstance(value, Integral):
        return f"{int(value)}".replace("-", _MINUS)
    number = float(value)
    if math.isnan(number):
        return MISSING
    return f"{0.0 if abs(number) < _ROUNDING else number:.{digits}g}".replace("-", _MINUS)


def duration(seconds: float) -> str:
    """Return seconds as people say them.

    Examples
    --------
    >>> duration(3.21), duration(185), duration(7500)
    ('3.2 s', '3 min 05 s', '2 h 05 min')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def parts_of(verdict: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the parts of a verdict with every key there and `values` by seed."""
    return [_complete(part) for part in (verdict or {}).get("parts", ())]


def _complete(part: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a part may lack; one interval and one share stand where older verdicts have a single number."""
    whole = {**_OPTIONAL, **part}
    values = whole.get("values") or {}
    by_seed = dict(values) if isinstance(values, Mapping) else dict(enumerate(values))
    whole["values"] = {str(seed): value for seed, value in by_seed.items()}
    whole.setdefault("intervals", [{key: whole.get(key) for key in ("low", "high", "level", "answer")}])
    whole.setdefault("shares", {"above_margin": whole.get("share_above"), "below_margin": whole.get("share_below")})
    whole["meaning"] = _meaning(part)
    return whole


def _meaning(reading: Mapping[str, Any]) -> str:
    texts = (str(reading[key]) for key in ("question", "contrast", "says") if reading.get(key))
    return "; ".join(text.removesuffix(f" ({reading['name']})") for text in texts)


def readings_of(verdict: Mapping[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """Return what stands under `controls` or `illustrations`: name, result, values, limit and meaning of each."""
    return [
        {
            "name": reading["name"],
            "result": {True: "✓ passed", False: "✕ failed"}.get(reading.get("passed"), "only shown"),
            "values": reading.get("values"),
            "limit": " ".join(shown(reading[key]) for key in ("threshold", "unit") if reading.get(key) is not None),
            "meaning": _meaning(reading),
        }
        for reading in (verdict or {}).get(key, ())
    ]


def seeds_of(parts: list[dict[str, Any]]) -> list[str]:
    """Return the seeds of all parts, and pairs of seeds such as 9-10, in the order of their numbers."""
    return sorted({seed for part in parts for seed in part["values"]}, key=_seed_order)


def _seed_order(seed: str) -> tuple[tuple[bool, int, str], ...]:
    return tuple((not one.isdecimal(), int(one) if one.isdecimal() else 0, one) for one in seed.split("-"))


def intervals(part: Mapping[str, Any]) -> list[str]:
    """Return a part's interval with its level; of several intervals each with its own answer.

    Examples
    --------
    >>> intervals({"intervals": [{"low": 0.1, "high": 0.3, "level": 0.9, "answer": "yes"}]})
    ['0.1 to 0.3 (90 %)']
    """
    return [_interval(each, several=len(part["intervals"]) > 1) for each in part["intervals"]]


def _interval(bounds: Mapping[str, Any], several: bool) -> str:
    if bounds["low"] is None or bounds["high"] is None:
        return MISSING
    remarks = [f"{100 * bounds['level']:.4g} %"] * bool(bounds.get("level")) + [str(bounds.get("answer"))] * several
    range_ = f"{shown(bounds['low'], 3)} to {shown(bounds['high'], 3)}"
    return f"{range_} ({', '.join(remarks)})" if remarks else range_


def sides(part: Mapping[str, Any]) -> str:
    """Return how many seeds lie above the margin, how many below, and how many there are.

    Examples
    --------
    >>> sides({"shares": {"above_margin": 2 / 3, "below_margin": 1 / 3}, "n": 3})
    '2, 1 of 3'
    """
    shares, n = [part["shares"].get(side) for side in ("above_margin", "below_margin")], part["n"]
    counts = [MISSING if share is None or not n else str(round(share * n)) for share in shares]
    return f"{', '.join(counts)} of {shown(n)}"


def flat(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the rows of a mapping in the order of their names, nested names joined by a colon."""
    rows: list[tuple[str, Any]] = []
    for name, value in sorted(values.items()):
        nested = flat(value) if isinstance(value, Mapping) else None
        rows += [(name, value)] if nested is None else [(f"{name}: {inner}", item) for inner, item in nested]
    return rows


def _sign(answer: str) -> str:
    return {**_VERDICTS, **SIGNS, "left out": MISSING}.get(answer, "?")


def _kind(answer: str) -> str:
    return answer.replace(" ", "-") if answer in _VERDICTS else "not-decided"


def _seed_name(seed: str) -> str:
    return f"seed {seed}"


def _setting(name: str | None) -> str:
    return _SETTINGS.get(name, str(name))


FILTERS: dict[str, Callable[..., Any]] = {
    "shown": shown, "duration": duration, "intervals": intervals, "sides": sides, "flat": flat, "sign": _sign,
    "kind": _kind, "seed_name": _seed_name, "setting": _setting,
}  # fmt: skip

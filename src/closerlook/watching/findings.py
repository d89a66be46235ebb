"""What the rows of a watched training say: who is unstable first, for how long, at which critical learning rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

GROWTH = 10.0  # of a block's gradient over its first one: what is called growing where there is no curvature to go by

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Instability:
    """Sharpness above the threshold of the learning rate in use: from step `begins` until before `ends`.

    `ends` is the first reading from which on it stays below, None if it was above at the last one. `block` is the one
    whose own sharpness exceeded the threshold first, by the largest `ratio`; `blocks` are all that did at that reading.
    """

    begins: int
    ends: int | None
    peak: float
    block: str | None
    step: int | None
    ratio: float | None
    blocks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "blocks": list(self.blocks)}


def instability(readings: Rows) -> Instability | None:
    """The instability that readings show, None where there is none.

    Examples
    --------
    >>> row = {"step": 0, "threshold": 20.0, "sharpness": 30.0, "blocks": {"conv": 5.0, "head": 25.0}}
    >>> found = instability([row, {"step": 10, "threshold": 20.0, "sharpness": 8.0, "blocks": {}}])
    >>> found.begins, found.ends, found.block, found.ratio
    (0, 10, 'head', 1.25)
    """
    ratios = [(row["step"], _ratio(row["sharpness"], row["threshold"])) for row in readings]
    above = [place for place, (_, ratio) in enumerate(ratios) if ratio > 1]
    if not above:
        return None
    ends = ratios[above[-1] + 1][0] if above[-1] + 1 < len(ratios) else None
    peak = max(ratio for _, ratio in ratios if not math.isnan(ratio))
    step, own = _first_blocks(readings)
    block = max(own, key=lambda name: own[name]) if own else None
    ratio = own[block] if block is not None else None
    return Instability(ratios[above[0]][0], ends, peak, block, step, ratio, tuple(own))


def _first_blocks(readings: Rows) -> tuple[int | None, dict[str, float]]:
    for row in readings:
        own = {block: _ratio(value, row["threshold"]) for block, value in row["blocks"].items()}
        above = {block: ratio for block, ratio in own.items() if ratio > 1}
        if above:
            return row["step"], above
    return None, {}


def _ratio(value: float | None, threshold: float) -> float:
    return math.nan if value is None else value / threshold


def critical(readings: Rows) -> dict[str, Any] | None:
    """The reading whose critical learning rate is the smallest part of the one in use; None where there is none.

    Readings at which no step along the direction lowers the loss (a critical rate of 0) are counted apart, in
    `uphill`: with momentum that is common.
    """
    found = [row for row in readings if row["critical_lr"] is not None and 0 < row["critical_lr"] < math.inf]
    uphill = sum(row["critical_lr"] == 0 for row in readings)
    if not found:
        return None
    least = min(found, key=lambda row: row["critical_lr"] / row["lr"] if row["lr"] else math.inf)
    first = found[0]
    told = {name: {key: row[key] for key in ("step", "critical_lr", "lr")} for name, row in
            (("first", first), ("least", least))}  # fmt: skip
    return {**told, "uphill": uphill, "readings": len(readings)}


def growth(moves: Rows) -> dict[str, Any] | None:
    """The block whose gradient first grew tenfold over its first one, and the largest growth of any."""
    first: dict[str, float] = {}
    largest: dict[str, float] = {}
    grew: dict[str, Any] | None = None
    for row in moves:
        for block, numbers in row["blocks"].items():
            gradient = numbers["gradient"]
            if not gradient:
                continue
            ratio = gradient / first.setdefault(block, gradient)
            largest[block] = max(largest.get(block, 0.0), ratio)
            if ratio >= GROWTH and grew is None:
                grew = {"block": block, "step": row["step"], "ratio": ratio}
    if not largest:
        return None
    most = max(largest, key=lambda block: largest[block])
    return {"first": grew, "most": {"block": most, "ratio": largest[most]}}

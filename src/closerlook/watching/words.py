"""What a watched training says, in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from closerlook.watching.findings import GROWTH, Instability

_TEST = "closerlook diagnose warmup tests by intervention whether that is what it takes"


def not_finite(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The first weights or gradients that were NaN or infinite."""
    if found:
        first = found[0]["step"]
        same = [f"{row['what']} of {row['block']}" for row in found if row["step"] == first]
        more = f" and {len(same) - 3} more" if len(same) > 3 else ""
        yield f"not finite first at step {first}: {', '.join(same[:3])}{more}"


def of_instability(found: Instability | None, last: int) -> Iterator[str]:
    """Who is unstable first, and for how long."""
    if found is None:
        yield f"sharpness was at no reading up to step {last} above the threshold of the learning rate in use"
        return
    yield f"unstable: sharpness up to {found.peak:.3g} times the threshold of the learning rate in use"
    if found.block is None:
        yield "no block by itself: each one alone stays below the threshold, only together they exceed it"
    else:
        others = [name for name in found.blocks if name != found.block]
        beside = f"; above it as well: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}" if others else ""
        yield f"unstable first: {found.block}, at step {found.step}, {found.ratio:.3g} times the threshold{beside}"
    if found.ends is None:
        yield (
            f"from step {found.begins} to the last reading, step {last}: no end was seen (at the edge of stability "
            "there is none); watch more steps, or lower the rate"
        )
    else:
        yield f"from step {found.begins} until step {found.ends}: a warmup would have to last about {found.ends} steps"
    yield f"this is a reading, not a test; {_TEST}"


def of_critical(found: Mapping[str, Any] | None) -> Iterator[str]:
    """The critical learning rate against the one in use."""
    if found is None:
        yield "no critical learning rate was found below 2^20 times the first guess, or none lowers the loss"
        return
    for name, words in (("first", "critical learning rate"), ("least", "lowest against the one in use")):
        row = found[name]
        if name == "first" or row["step"] != found["first"]["step"]:
            above = " (above it: the step overshoots)" if row["lr"] > row["critical_lr"] else ""
            yield f"{words}: {row['critical_lr']:.3g} at step {row['step']}; in use {row['lr']:.3g}{above}"
    if found["uphill"]:
        yield f"at {found['uphill']} of {found['readings']} readings the next step raises the probe's loss at any rate"


def of_growth(found: Mapping[str, Any] | None) -> Iterator[str]:
    """What can be said without a probe."""
    if found is None:
        yield "no gradient was seen"
        return
    first, most = found["first"], found["most"]
    if first is None:
        yield f"no gradient grew {GROWTH:g}-fold; most did {most['block']}, {most['ratio']:.3g}-fold"
    else:
        yield f"grew first: the gradient of {first['block']}, {first['ratio']:.3g}-fold at step {first['step']}"
    yield (
        "without a probe there is no sharpness and no critical learning rate: pass probe=[a fixed batch] to hear which "
        "block is unstable, against which rate, and for how long"
    )

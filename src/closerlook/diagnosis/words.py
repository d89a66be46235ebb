"""The findings of a diagnosis in words, and the advice in one line."""

from collections.abc import Iterator

import numpy as np

from closerlook.diagnosis.findings import Findings, summary
from closerlook.diagnosis.outcomes import Outcomes
from closerlook.diagnosis.settings import MARGIN, SLOW


def advice(found: Outcomes, seen: Findings) -> str:
    """What to do, in one line."""
    s, n = found.settings, len(found.settings.seeds)
    none, slow = _learned(found, "N"), _learned(found, "Q")
    lower = f"lower the learning rate: at {SLOW * s.optimizer.lr:.3g} {slow} of {n} seeds train; at {s.optimizer.lr:g}"
    if seen.unstable and slow == n and np.mean(list(seen.slow.values())) > MARGIN:
        ahead = f"{SLOW * s.optimizer.lr:.3g} without warmup is ahead of the longest one by"
        return f"lower the learning rate: {ahead} {_points(list(seen.slow.values()))}"
    if seen.unstable and seen.length is not None:
        shorter = [length for length in s.lengths if length < seen.length]
        tried = f"{shorter[-1]} do not in all" if shorter else "shorter ones were not tried"
        return f"warm up linearly over {seen.length} steps: that works in {n} of {n} seeds, {tried}"
    if seen.unstable:
        return f"{lower} no length of warmup tried (up to {s.ramp} steps) works in all"
    if none == n:
        worse = sum(state != "stable" for state in seen.states.values())
        harm = f", and one makes it worse in {worse}" if worse else ""
        return f"no warmup is needed over the first {s.steps} steps at {s.optimizer.lr:g} ({n} of {n} seeds){harm}"
    warm = _learned(found, f"W:{s.ramp}")
    return f"{lower} {none} do without warmup and {warm} with {s.ramp} steps of it"


def _learned(found: Outcomes, arm: str) -> int:
    return sum(outcome.learned(found.chance) for outcome in found.by_arm[arm].values())


def lines(found: Outcomes, seen: Findings) -> list[str]:
    """The findings, a sentence each."""
    return [*_state(found, seen), *_blocks(found, seen), *_critical(found), *_sharpness(found), *_caveats(found)]


def _state(found: Outcomes, seen: Findings) -> Iterator[str]:
    s, n = found.settings, len(found.settings.seeds)
    lost = sum(outcome.diverged_at is not None for outcome in found.by_arm["N"].values())
    yield (
        f"instability at learning rate {s.optimizer.lr:g} in {len(seen.unstable)} of {n} seeds: accuracy with {s.ramp} "
        f"steps of warmup less that without {_points(list(seen.benefit.values()))}; without, {lost} of {n} diverged"
    )
    yield (
        f"at a quarter of the rate without warmup: accuracy less that with {s.ramp} steps of it "
        f"{_points(list(seen.slow.values()))}"
    )
    for length, seeds in seen.works.items():
        yield f"warmup over {length} steps works in {len(seeds)} of {n} seeds"


def _blocks(found: Outcomes, seen: Findings) -> Iterator[str]:
    if not seen.unstable:
        return
    n = len(seen.unstable)
    for kind, verb in (("WB", "warming up"), ("FB", "freezing")):
        counts = {block: len(seen.removes(f"{kind}:{block}")) for block in found.settings.blocks}
        best = [block for block, count in counts.items() if count == n]
        if best:
            yield f"{verb} one block alone removes it in all {n} seeds: {' | '.join(best)}"
        else:
            most = max(counts, key=lambda block: counts[block])
            yield f"{verb} one block alone removes it in all seeds for no block; most for {most}, {counts[most]} of {n}"


def _critical(found: Outcomes) -> Iterator[str]:
    values = [value for value in found.critical.values() if value]
    lr = found.settings.optimizer.lr
    if not values:
        yield "the critical learning rate of the first step could not be read"
        return
    over = summary([float(np.log(value)) for value in values])
    ends = "" if over["low"] is None else f", {np.exp(over['low']):.3g} to {np.exp(over['high']):.3g}"
    yield (
        f"critical learning rate of the first step {np.exp(over['mean']):.3g}{ends}; in use {lr:g}, "
        f"{lr / np.exp(over['mean']):.2g} times as much"
    )


def _sharpness(found: Outcomes) -> Iterator[str]:
    for arm, words in (("N", "without warmup"), (f"W:{found.settings.ramp}", "with it")):
        each = [found.instability(arm, seed) for seed in found.settings.seeds]
        there = [one for one in each if one is not None]
        ends = ", ".join("not seen" if one.ends is None else str(one.ends) for one in there)
        last = f"; it ends at step {ends}" if there else ""
        yield f"sharpness above the threshold {words}: in {len(there)} of {len(each)} seeds{last}"


def _caveats(found: Outcomes) -> Iterator[str]:
    s = found.settings
    yield (
        f"tested at a constant rate over {s.steps} steps; nothing is known of later ones, nor of lengths that were not "
        "tried"
    )
    if len(s.seeds) < 5:
        yield "fewer than five seeds: take it as provisional"


def _points(values: list[float]) -> str:
    over = summary([100 * value for value in values])
    ends = "" if over["low"] is None else f" ({over['low']:+.1f} to {over['high']:+.1f}, {100 * over['level']:.0f} %)"
    return f"{over['mean']:+.1f} points{ends}"

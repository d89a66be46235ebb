"""A verdict on a terminal: the sentence, the parts as an aligned table, every seed, the controls."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from closerlook.evidence.readings import PartResult, Reading

if TYPE_CHECKING:
    from closerlook.evidence.verdicts import Verdict

_WIDTH = 100
_HEADER = ("part", "difference", "n", "effect", "level", "interval", "margin", "answer", "decidable from")
_SHARES = ("above margin", "below margin", "above 0", "below 0")


def printed(verdict: "Verdict") -> str:
    """Text of a verdict, without trailing newline."""
    setting = f"setting {verdict.setting}" if verdict.setting else "how the setting was chosen is not stated"
    seeds = f"{len(verdict.seeds)} seeds" + ", provisional" * verdict.provisional
    facts = f"Rule {verdict.rule}, version {verdict.version}; {setting}; {seeds}."
    blocks = [
        textwrap.fill(verdict.words, _WIDTH),
        facts,
        _columns([_HEADER, *(row for part in verdict.parts for row in _interval_rows(part))]),
        _columns([("part", *verdict.seeds, *_SHARES), *(_seed_row(part) for part in verdict.parts)]),
        "\n".join(_reading(each) for each in (*verdict.controls, *verdict.illustrations)),
        "\n".join(f"note: {note}" for note in verdict.notes),
    ]
    return "\n\n".join(block for block in blocks if block)


def _interval_rows(result: PartResult) -> Iterator[tuple[str, ...]]:
    part, effect = result.part, result.effect
    for index, each in enumerate(effect.intervals):
        shown = f"[{_number(each.low)}, {_number(each.high)}]"
        level = f"{100 * each.level:.3g} %"
        if index == 0:
            facts = (part.name, part.contrast, str(effect.n), _number(effect.mean))
            yield (*facts, level, shown, f"{part.margin:.4f}", each.answer, _number(effect.smallest_decidable))
        else:
            yield ("", "", "", "", level, shown, f"{part.margin:.4f}", each.answer, "")


def _seed_row(result: PartResult) -> tuple[str, ...]:
    shares = ("" if share is None else f"{100 * share:.0f} %" for share in vars(result.effect.shares).values())
    return (result.part.name, *(_number(value) for value in result.effect.values.values()), *shares)


def _reading(reading: Reading) -> str:
    head = {True: "control passed", False: "CONTROL FAILED", None: "shown only"}[reading.passed]
    values = ", ".join(f"{seed}: {_number(value, sign='')}" for seed, value in reading.values.items()) or "no values"
    return textwrap.fill(f"{head}: {reading.says} ({values})", _WIDTH, subsequent_indent="  ")


def _number(value: float | None, sign: str = "+") -> str:
    return "-" if value is None else f"{value:{sign}.4f}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)

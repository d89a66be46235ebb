"""What a verb answers: text for people, or JSON and nothing else."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any, TextIO

_STDOUT: ContextVar[TextIO | None] = ContextVar("stdout")


@contextmanager
def only_answers() -> Iterator[None]:
    """Keep stdout for answers: what a user's model or data print meanwhile goes to stderr."""
    token = _STDOUT.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _STDOUT.reset(token)


def answer(result: Any, text: str, as_json: bool) -> None:
    """Print one of the two on stdout, whatever letters it can take; names of files may hold any."""
    stdout = _STDOUT.get(sys.stdout)
    if stdout is not None:  # it can be closed from the start
        encoding = stdout.encoding or "utf-8"
        printed = json.dumps(plain(result), indent=1) if as_json else text
        print(printed.encode(encoding, "backslashreplace").decode(encoding), file=stdout)


def columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An aligned table; numbers stand right, floats with four digits.

    Examples
    --------
    >>> print(columns(["split", "barrier"], [["train", 0.25], ["test", 1]]))
    split  barrier
    train     0.25
    test         1
    """
    numeric = [all(isinstance(row[index], int | float) for row in rows) for index in range(len(header))]
    cells = [list(header), *([shown(value) for value in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(header))]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def facts(pairs: Mapping[str, Any]) -> str:
    """One aligned line per name and value."""
    width = max(map(len, pairs), default=0)
    return "\n".join(f"{name:<{width}}  {shown(value)}" for name, value in pairs.items())


def plain(value: Any) -> Any:
    """JSON types only; a number that is not finite is null, since JSON has no other way to say it."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)

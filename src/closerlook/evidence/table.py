"""The table that a verdict is computed from, checked: one value per arm, seed and quantity."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from closerlook.errors import UsageError
from closerlook.evidence.rows import COLUMNS, rows_of

FRACTIONS = ("accuracy", "error", "train_error")
GAPS = {"", "nan", "<na>"}  # how spreadsheets and data frames write a gap, in small letters

LARGEST = 1e100  # sums of its square are still finite

Key = tuple[str, str]  # arm, quantity


@dataclass(frozen=True)
class Table:
    """Values by (arm, quantity) and seed; NaN where a row stands without a value."""

    values: Mapping[Key, Mapping[str, float]]

    def column(self, arm: str, quantity: str) -> Mapping[str, float]:
        """Values of one arm and quantity by seed; empty if there are none."""
        return self.values.get((arm, quantity), {})

    def seeds(self, keys: Iterable[Key]) -> list[str]:
        """Every seed with a row under one of `keys`, in numerical order."""
        return sorted({seed for key in keys for seed in self.column(*key)}, key=_seed_order)


def _seed_order(seed: str) -> tuple[tuple[bool, int, str], ...]:
    """Sort key that puts seed 9 before seed 10, and the pair "9-10" before "10-11"."""
    return tuple((False, int(part), "") if part.isdecimal() else (True, 0, part) for part in seed.split("-"))


def read_table(source: Any) -> Table:
    """Check the rows of `source` and index them by arm, quantity and seed.

    Parameters
    ----------
    source
        A list of rows (mappings), a mapping of columns, anything with ``.to_dict("records")`` such as a DataFrame, or
        the path of a CSV file with a header. Columns: arm, seed, quantity, value. An empty, None or not finite value
        is kept as missing. Accuracies and errors are fractions between 0 and 1.

    Raises
    ------
    UsageError
        No such file, no rows, wrong columns, an empty name, a value that is no number or beyond 1e100, a fraction
        outside [0, 1], or two rows for one arm, seed and quantity.

    Examples
    --------
    >>> table = read_table([{"arm": "R", "seed": 100, "quantity": "accuracy", "value": 0.91}])
    >>> table.column("R", "accuracy")
    {'100': 0.91}
    """
    values: dict[Key, dict[str, float]] = {}
    for number, row in enumerate(rows_of(source), start=1):
        _check_columns(row, number)
        arm, seed, quantity = (_name(row[column], column, number) for column in COLUMNS[:3])
        place = f"arm {arm}, seed {seed}, quantity {quantity}"
        column = values.setdefault((arm, quantity), {})
        if seed in column:
            raise UsageError(f"two rows for {place} (the second is row {number}); keep one")
        column[seed] = _value(row["value"], quantity, place)
    if not values:
        raise UsageError(f"the table has no rows; give one row per measurement with the columns {', '.join(COLUMNS)}")
    return Table(values)


def _check_columns(row: Any, number: int) -> None:
    if not isinstance(row, Mapping):
        raise UsageError(f"row {number} is a {type(row).__name__}, not a mapping with the keys {', '.join(COLUMNS)}")
    missing = [column for column in COLUMNS if column not in row]
    unknown = [str(column) for column in row if column not in COLUMNS]
    if missing or unknown:
        lacks = f"lacks {', '.join(missing)}" if missing else ""
        has = f"has the unknown {', '.join(unknown)}" if unknown else ""
        wrong = " and ".join(part for part in (lacks, has) if part)
        raise UsageError(f"row {number} {wrong}; the columns are exactly {', '.join(COLUMNS)} (commas in a file)")


def _text(entry: Any) -> str:
    return "" if entry is None else str(entry).strip()


def _name(entry: Any, column: str, number: int) -> str:
    text = _text(entry)
    if text.lower() in GAPS:
        raise UsageError(f"row {number} has no {column}; fill it in or delete the row")
    # A seed column that held a gap comes out of a data frame as 100.0.
    return text.removesuffix(".0") if column == "seed" else text


def _value(entry: Any, quantity: str, place: str) -> float:
    if _text(entry).lower() in GAPS | {"na"}:
        return math.nan
    try:
        value = float(entry)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the value of {place} is {entry!r}, not a number; leave it empty if it is missing") from error
    if not math.isfinite(value):
        return math.nan
    if abs(value) > LARGEST:
        raise UsageError(f"the value of {place} is {value:g}, which nothing measures; leave it empty if it is missing")
    if quantity in FRACTIONS and not 0 <= value <= 1:
        raise UsageError(f"the value of {place} is {value:g}; {quantity} is a fraction: divide percents by 100")
    return value

"""The rows of a table, wherever they are: a list, a mapping of columns, a data frame, a CSV file."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from closerlook.errors import UsageError

COLUMNS = ("arm", "seed", "quantity", "value")


def rows_of(source: Any) -> Iterable[Any]:
    """Rows of any of the accepted sources, unchecked.

    Raises
    ------
    UsageError
        No such file, a file that is no CSV, ragged lines or columns, or something that is no table at all.

    Examples
    --------
    >>> rows_of({"arm": ["R", "K"], "seed": [100, 100]})
    [{'arm': 'R', 'seed': 100}, {'arm': 'K', 'seed': 100}]
    """
    if isinstance(source, str | Path):
        return _from_csv(Path(source))
    if hasattr(source, "to_dict"):
        return list(source.to_dict("records"))
    if isinstance(source, Mapping):
        return _from_columns(source)
    if isinstance(source, Iterable):
        return source
    raise UsageError(
        f"a {type(source).__name__} is not a table; give a list of rows, a mapping of columns, a DataFrame or "
        "the path of a CSV file"
    )


def _from_csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UsageError(f"no table at {path}; give the path of a CSV file with the columns {', '.join(COLUMNS)}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a CSV file ({error}); save it as UTF-8 text separated by commas") from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise UsageError(f"row {number} of {path} has more or fewer fields than its header; make them equal")
    return rows


def _from_columns(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    if any(isinstance(column, str) or not isinstance(column, Iterable) for column in columns.values()):
        raise UsageError("a mapping must hold one list per column; put a single row into a list: [row]")
    listed = {name: list(column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in listed.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"the columns have different lengths ({lengths}); give one value per row in each")
    return [dict(zip(listed, row, strict=True)) for row in zip(*listed.values(), strict=True)]

"""The table of a verdict: every accepted source reads alike, every defect is named with its repair."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from closerlook.errors import UsageError
from closerlook.evidence import read_table

ROWS: list[dict[str, Any]] = [
    {"arm": "R", "seed": 100, "quantity": "accuracy", "value": 0.91},
    {"arm": "R", "seed": 9, "quantity": "accuracy", "value": 0.89},
    {"arm": "I", "seed": "9-100", "quantity": "seed_barrier", "value": 1.5},
    {"arm": "K", "seed": 100, "quantity": "accuracy", "value": None},
]


def row(**changes: Any) -> list[dict[str, Any]]:
    return [{**ROWS[0], **changes}]


def test_every_source_reads_alike(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "table.csv", index=False)
    columns = {name: [each[name] for each in ROWS] for name in ROWS[0]}
    expected = read_table(ROWS)
    for source in (frame, tmp_path / "table.csv", str(tmp_path / "table.csv"), columns, iter(ROWS)):
        found = read_table(source)
        assert found.column("R", "accuracy") == expected.column("R", "accuracy") == {"100": 0.91, "9": 0.89}
        assert math.isnan(found.column("K", "accuracy")["100"])
        assert found.seeds([("R", "accuracy")]) == ["9", "100"]


def test_spaces_bom_and_column_order_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\ufeffvalue, quantity, seed, arm\n0.5, accuracy , 100, R\n", encoding="utf-8")
    assert read_table(path).column("R", "accuracy") == {"100": 0.5}


@pytest.mark.parametrize("seed", [100, "100", 100.0, "100.0", np.int64(100), " 100 "])
def test_one_seed_has_one_name(seed: Any) -> None:
    assert read_table(row(seed=seed)).column("R", "accuracy") == {"100": 0.91}


@pytest.mark.parametrize("gap", [None, "", " ", math.nan, "NaN", "NA", math.inf, "-inf", pd.NA, np.float32("nan")])
def test_gaps_are_kept_as_missing(gap: Any) -> None:
    assert math.isnan(read_table(row(value=gap)).column("R", "accuracy")["100"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (row() + row(seed="100"), r"two rows for arm R, seed 100, quantity accuracy \(the second is row 2\); keep one"),
        (row(value="high"), "value of arm R, seed 100, quantity accuracy is 'high', not a number; leave it empty"),
        (row(value=[0.1]), "not a number"),
        (row(value=91.2), "is 91.2; accuracy is a fraction: divide percents by 100"),
        (row(value=-0.1), "accuracy is a fraction"),
        (row(arm=""), "row 1 has no arm; fill it in"),
        (row(seed=math.nan), "row 1 has no seed"),
        (row(quantity=None), "row 1 has no quantity"),
        (row(epoch=3), "row 1 has the unknown epoch; the columns are exactly arm, seed, quantity, value"),
        ([{"arm": "R", "seed": 1, "value": 1.0}], "row 1 lacks quantity; the columns"),
        ([("R", 100, "accuracy", 0.9)], "row 1 is a tuple, not a mapping"),
        ([], "the table has no rows; give one row per measurement"),
        (pd.DataFrame(columns=["arm", "seed", "quantity", "value"]), "no rows"),
        ({"arm": ["R"], "seed": [1, 2], "quantity": ["a"], "value": [1]}, "different lengths"),
        (ROWS[0], "one list per column; put a single row into a list"),
        (3, "a int is not a table; give a list of rows"),
        ("nowhere.csv", "no table at nowhere.csv; give the path"),
    ],
)
def test_defects_are_named(source: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_table(source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"arm;seed;quantity;value\nR;100;accuracy;0.9\n", "lacks arm, .*, value and has the unknown arm;seed"),
        (b"arm,seed,quantity,value\nR,100,accuracy\n", "row 1 of .* more or fewer fields than its header"),
        (b"arm,seed,quantity,value\nR,100,accuracy,0,9\n", "more or fewer fields"),
        (b"arm,seed,quantity,value\n", "no rows"),
        (b"", "no rows"),
        (b"\x93NUMPY\x01\x00v\x00", "is not a CSV file"),
    ],
)
def test_defects_of_a_file_are_named(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=message):
        read_table(path)

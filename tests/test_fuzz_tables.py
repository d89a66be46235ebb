"""Tables that were changed at random are judged or refused by ``closerlook verdict``: never a traceback."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closerlook.cli import main
from closerlook.evidence import RULES

FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLUMNS = ["arm", "seed", "quantity", "value"]


def sound() -> list[list[str]]:
    """The rows of a table in which every part of the rule can be judged."""
    chosen = RULES["restarts"]
    keys = {(arm, part.quantity) for part in chosen.parts for arm in (part.arm, part.baseline)}
    rows = [[arm, str(seed), name, f"{0.5 + seed / 1e4}"] for arm, name in sorted(keys) for seed in range(100, 105)]
    return [*rows, ["I", "100-101", "seed_barrier", "1.0"], ["R", "100", "self_barrier", "0.001"]]


ROWS = sound()
VALUES = st.one_of(
    st.floats().map(str), st.integers().map(str), st.text(max_size=6),
    st.sampled_from(["", "NaN", "nan", "inf", "-inf", "1e999", "1e308", "5e-324", "0x1", "1_0", "１", "9" * 99]),
)  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def judge(content: bytes, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any] | None:
    """The verdict, or None when the table was refused in a readable way."""
    Path("table.csv").write_bytes(content)
    status = main(["verdict", "table.csv", "--rule", "restarts", "--json", *more])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert [path.name for path in Path().iterdir()] == ["table.csv"]
    if status == 0:
        found: dict[str, Any] = json.loads(out)
        assert found["answer"] in ("supported", "contradicted", "not decided", "numbers only")
        return found
    assert (status, out) == (2, "")
    assert err.startswith("closerlook: ")
    return None


def written(rows: list[list[str]], header: list[str] = COLUMNS) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


def test_the_sound_table_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(written(ROWS), capsys) is not None


@FUZZ
@given(data=st.data())
def test_changed_cells(data: st.DataObject, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [list(row) for row in ROWS]
    for _ in range(data.draw(st.integers(1, 4))):
        rows[data.draw(st.integers(0, len(rows) - 1))][data.draw(st.integers(0, 3))] = data.draw(VALUES)
    chance = data.draw(st.sampled_from([[], ["--chance", "0.1"]]))
    judge(written(rows), capsys, *chance)


@FUZZ
@given(data=st.data())
def test_changed_rows_and_columns(data: st.DataObject, capsys: pytest.CaptureFixture[str]) -> None:
    rows = data.draw(st.lists(st.sampled_from(ROWS), max_size=30))  # some twice, most missing
    keep = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 3]), max_size=6))
    judge(written([[row[i] for i in keep] for row in rows], [COLUMNS[i] for i in keep]), capsys)


@FUZZ
@given(data=st.data())
def test_cut_and_mixed_bytes(data: st.DataObject, capsys: pytest.CaptureFixture[str]) -> None:
    whole = written(ROWS)
    start, end = (data.draw(st.integers(0, len(whole))) for _ in range(2))
    judge(whole[:start] + data.draw(st.binary(max_size=8)) + whole[end:], capsys)


@FUZZ
@given(content=st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda text: text.encode())))
def test_any_bytes(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    judge(content, capsys)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp037", "utf-8-sig", "latin-1"])
def test_encodings(encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = written([*ROWS, ["Zürich", "1", "accuracy", "0.5"]]).decode()
    found = judge(text.encode(encoding), capsys)
    assert (found is not None) == (encoding == "utf-8-sig")


@pytest.mark.parametrize(
    "content",
    [b"arm,seed,quantity,value\n" + b'"' * 200_000, b"arm,seed,quantity,value\nR,1,accuracy," + b"9" * 200_000,
     b"arm,arm,seed,quantity,value\nR,R,1,accuracy,0.5\n", b"arm;seed;quantity;value\nR;1;accuracy;0.5\n",
     b"arm,seed,quantity,value\r\r\nR,1,accuracy,0.5\r\r\n", b"\x00" * 100, b""],
    ids=range(7),
)  # fmt: skip
def test_extremes(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    judge(content, capsys)


def test_a_folder_is_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.csv").mkdir()
    assert main(["verdict", "table.csv", "--rule", "restarts"]) == 2
    assert "no table at table.csv" in capsys.readouterr().err

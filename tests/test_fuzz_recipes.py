"""Recipes that were changed at random are priced or refused: no traceback, no code that runs, no folder."""

import copy
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closerlook.cli import main
from closerlook.errors import CloserlookError
from closerlook.runs.folder import RunFolder
from closerlook.runs.inspection import inspect

RECIPE: dict[str, Any] = {
    "kind": "train", "version": 2,
    "data": {"name": "digits", "n_train": 60, "n_validation": 20, "n_statistics": 20, "n_read": 20, "seed": 0},
    "model": {"name": "mlp", "options": {"hidden": [4], "init": "he"}}, "optimizer": {"lr": 0.1, "weight_decay": 0},
    "epochs": 2, "batch_size": 20, "seeds": {"init": 0, "order": 0, "augment": 0, "noise": 0},
    "snapshots": ["1ep", "3it"],
    "schedule": {"kind": "then", "first": {"kind": "restarts", "first": "1ep"}, "at": "1ep",
                 "second": {"kind": "warmup", "length": "2it", "after": {"kind": "cosine"}}},
}  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([10**400, [], {}]),
    st.sampled_from(["os:system", "shutil:rmtree", "../../etc/passwd", "NaN", "1ep", "", ":", "a:b", "train", "1e999"]),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)  # fmt: skip


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every part of nested settings."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, part in inner for place in places(part, (*here, key)))]


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


PLACES = places(RECIPE)[1:]


@st.composite
def changed(draw: st.DrawFn) -> Any:
    """The recipe with one to three parts replaced, taken away, or joined by others."""
    recipe = copy.deepcopy(RECIPE)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(recipe)[1:] or [()]))
        if not place:
            break
        folder, key, how = at(recipe, place[:-1]), place[-1], draw(st.sampled_from(["put", "drop", "add", "nest"]))
        if how == "drop":
            del folder[key]
        elif how == "add" and isinstance(folder, dict):
            folder[draw(st.text(max_size=6))] = draw(ODD)
        elif how == "nest":
            folder[key] = {str(key): copy.deepcopy(folder[key])}
        else:
            folder[key] = draw(ODD)
    return recipe


def damaged(draw: Callable[..., Any]) -> bytes:
    """The recipe's bytes, cut, doubled or with others in between."""
    text = json.dumps(RECIPE).encode()
    start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    between = text[:start] + draw(st.binary(max_size=9)) + text[end:]
    return draw(st.sampled_from([text[:end], between, text[start:] + text]))


FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOSERLOOK_DATA", str(tmp_path))
    return tmp_path


def check(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe is priced or refused by the command, and as a stored one read or refused with a typed error."""
    Path("recipe.json").write_bytes(content)
    status = main(["train", "recipe.json", "--dry-run"])
    out, err = capsys.readouterr()
    assert status in (0, 1, 2)
    assert bool(out) == (status == 0)
    assert status == 0 or err.startswith("closerlook: ")
    assert "Traceback" not in err
    with suppress(CloserlookError):
        RunFolder(Path()).recipe()
    inspect(RunFolder(Path()))
    assert [path.name for path in Path().iterdir()] == ["recipe.json"]


def test_the_sound_recipe_is_priced(capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.json").write_text(json.dumps(RECIPE))
    assert main(["train", "recipe.json", "--dry-run"]) == 0
    assert RunFolder(Path()).recipe().kind == "train"


@FUZZ
@given(recipe=changed())
def test_changed_settings(recipe: Any, capsys: pytest.CaptureFixture[str]) -> None:
    check(json.dumps(recipe).encode(), capsys)


@FUZZ
@given(data=st.data())
def test_changed_bytes(data: st.DataObject, capsys: pytest.CaptureFixture[str]) -> None:
    check(damaged(data.draw), capsys)


@FUZZ
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode())))
def test_any_bytes(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    check(content, capsys)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"kind": {}}', '{"kind": ["train"]}', "\ufeff{}", "null"]
)
def test_extremes(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(content.encode(), capsys)


def test_a_recipe_runs_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    shell = {"name": "subprocess:call", "options": {"args": "touch ran", "shell": True}}
    for part in ({"model": shell}, {"data": {**RECIPE["data"], "name": "subprocess:call"}}):
        Path("recipe.json").write_text(json.dumps({**RECIPE, **part}))
        assert main(["train", "recipe.json"]) == 2
        assert "is a part of Python" in capsys.readouterr().err
    assert not Path("ran").exists()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([".".join(map(str, place)) for place in PLACES]), value=ODD)
def test_changes_on_the_command_line(key: str, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.json").write_text(json.dumps(RECIPE))
    assert main(["train", "recipe.json", "--dry-run", "--set", f"{key}={json.dumps(value)}"]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["recipe.json"]

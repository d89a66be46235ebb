"""``package.module:function`` as text."""

import sys
from pathlib import Path

import pytest

from closerlook.errors import UsageError
from closerlook.models import is_target, load_target


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_module_of_the_working_folder_is_found_with_its_neighbours(folder: Path) -> None:
    (folder / "target_neighbour.py").write_text("value = 3\n")
    (folder / "target_own.py").write_text(
        "def make():\n    import target_neighbour\n    return target_neighbour.value\n"
    )
    assert load_target("target_own:make")() == 3


def test_a_missing_dependency_is_not_taken_for_a_missing_module(folder: Path) -> None:
    (folder / "target_needs.py").write_text("import target_absent\n")
    with pytest.raises(UsageError, match="importing target_needs failed, it needs the module target_absent"):
        load_target("target_needs:make")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("math", "write package.module:function"),
        ("numpy:", "write package.module:function"),
        (":sqrt", "write package.module:function"),
        ("no_such_package.module:f", "no module no_such_package in"),
        ("numpy.no_such:f", "no module numpy.no_such in"),
        ("numpy:sqr", "has no sqr; did you mean sqrt"),
        ("numpy:pi", "is a float, not a function"),
        ("os:system", "os:system: a module of that name is a part of Python"),
        ("os.path:join", "is a part of Python"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_target(text)


def test_built_in_names_are_no_targets() -> None:
    assert is_target("a.b:c")
    assert not is_target("fashion")

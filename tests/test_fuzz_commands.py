"""Any words on the command line: an answer, or one readable refusal; nothing runs, and nothing is written elsewhere."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closerlook.cli import main, verbs
from closerlook.errors import StepFailedError
from closerlook.models import build

FUZZ = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
RECIPE = {
    "data": {"name": "digits", "n_train": 60, "n_validation": 20, "n_statistics": 20, "n_read": 20, "seed": 0},
    "model": {"name": "mlp", "options": {"hidden": [4]}}, "optimizer": {"lr": 0.1}, "epochs": 2, "batch_size": 20,
    "seeds": {"init": 0, "order": 0, "augment": 0, "noise": 0},
}  # fmt: skip
GIVEN = ["a.pt", "b.pt", "recipe.json", "table.csv", "folder"]
NAMES = ["restarts", "mlp", "digits", "fashion", "models", "train-12345678", "hidden=[4]", "mymodule:net", "os:system"]
# What a shell can hand over: no zero byte, but bytes that are no text.
TEXT = st.text(st.characters(exclude_categories=(), exclude_characters="\0/"), max_size=6)
NUMBERS = st.one_of(st.integers(), st.floats()).map(str)


def run(words: list[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr, as strict as the real ones."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with redirect_stdout(out), redirect_stderr(err):
        status = main(words)
    for stream in (out, err):
        stream.flush()
    return status, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()  # type: ignore[attr-defined]


def options(verb: str) -> list[str]:
    return sorted(set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", run([*verb.split(), "--help"])[1])) - {"--help"})


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what commands take; no step runs, and nothing is fetched."""

    def stop(*_: Any) -> None:
        raise StepFailedError("no step runs here")

    folder = tmp_path_factory.mktemp("shelf")
    for name in ("a", "b"):
        torch.save(build("mlp", in_features=64, hidden=(4,), classes=10).state_dict(), folder / f"{name}.pt")
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    (folder / "table.csv").write_text("arm,seed,quantity,value\nR,1,accuracy,0.5\n")
    (folder / "folder").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("CLOSERLOOK_DATA", str(folder))
        patched.setattr("closerlook.cli.work.launch", stop)
        patched.setattr("closerlook.cli.study.run_study", stop)
        patched.setattr("closerlook.data.download._from_debian", stop)
        patched.setattr("closerlook.data.download._from_mirrors", stop)
        yield folder


def check(words: list[str], folder: Path) -> None:
    status, out, err = run(words)
    assert status in (0, 1, 2)
    assert "Traceback" not in out + err
    assert status == 0 or err or words[:1] == ["doctor"]
    if status == 0 and "--json" in words and "--help" not in words and "-h" not in words:
        json.loads(out)
    outside = {path.name for path in folder.iterdir()} - {*GIVEN}
    assert outside == set(), words


@pytest.fixture(scope="module")
def known() -> dict[str, list[str]]:
    """The options of every verb."""
    return {verb: options(verb) for verb in verbs.VERBS}


@FUZZ
@given(data=st.data())
def test_verbs_with_any_words(data: st.DataObject, shelf: Path, known: dict[str, list[str]]) -> None:
    verb = data.draw(st.sampled_from(list(known)))
    word = st.one_of(st.sampled_from(known[verb]), st.sampled_from(GIVEN), st.sampled_from(NAMES), NUMBERS, TEXT)
    more = data.draw(st.sampled_from([[], ["--dry-run"], ["--json"]]))
    check([*verb.split(), *data.draw(st.lists(word, max_size=7)), *more], shelf)


WORDS = [*" ".join(verbs.VERBS).split(), "--json"]


@FUZZ
@given(words=st.lists(st.one_of(TEXT, NUMBERS, st.sampled_from(WORDS)), max_size=4))
def test_any_words(words: list[str], shelf: Path) -> None:
    check(words, shelf)


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_empty_words(verb: str, shelf: Path) -> None:
    for count in range(1, 5):
        check([*verb.split(), *[""] * count], shelf)
    for option in options(verb):
        check([*verb.split(), *GIVEN[:2], option, ""], shelf)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["runs", "ls", "--runs", "\udc80"], 0, "no runs in \\udc80"),
        (["runs", "ls", "--runs", "\udc80", "--json"], 0, "[]"),
        (["show", "\udc80"], 2, "no study, model, data set, rule or intervention '\\udc80'"),
        (["study", "restarts", "--seeds", "1-99999999999"], 2, "are 99,999,999,999 seeds; a study has at most 1,000"),
        (["study", "restarts", "--seeds", "9" * 30], 2, "cannot read the seeds"),
        (["study", "restarts", "--seeds", "²"], 2, "cannot read the seeds"),
        (["report", ""], 2, "a run has a name"),
        (["runs", "rm", ""], 2, "a run has a name"),
        (["path", "a.pt", "b.pt", "--model", "os:system", "--data", "digits"], 2, "is a part of Python"),
    ],
)
def test_words_that_went_wrong(words: list[str], status: int, said: str, shelf: Path) -> None:
    found, out, err = run(words)
    assert (found, said in out + err) == (status, True), out + err


def test_an_answer_fits_any_terminal(shelf: Path) -> None:
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    with redirect_stdout(out):
        assert main(["runs", "ls", "--runs", "Läufe"]) == 0
    out.flush()
    assert out.buffer.getvalue() == b"no runs in L\\xe4ufe\n"  # type: ignore[attr-defined]

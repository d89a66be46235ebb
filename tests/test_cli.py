"""The command: verbs, help, wrong use, exit status, what goes to stdout."""

import re
import subprocess
import sys
from itertools import pairwise

import pytest

from closerlook.cli import main, verbs
from closerlook.errors import StoreError, UsageError


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_every_verb_explains_itself(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"closerlook {verb}: ")
    assert "examples:\n  closerlook " + verb in out
    assert "--json" in out
    assert err == ""


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_every_option_has_a_text(verb, capsys):
    main([*verb.split(), "--help"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    for line, following in pairwise([*lines, ""]):
        if re.match(r"-o |--[a-z]", line):
            told = line.partition("  ")[2].strip() or following
            assert re.match(r"[A-Z]", told), line


def test_overview(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in verbs.VERBS)
    assert main([]) == 2
    assert "verbs:" in capsys.readouterr().err
    assert main(["runs", "--help"]) == 0
    assert "runs verify" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.count(".") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pth"], "no verb 'pth'; did you mean path?"),
        (["qqq"], "no verb 'qqq'; see closerlook --help"),
        (["qqq", "--help"], "no verb 'qqq'"),
        (["runs"], "runs needs an action: ls, show, rm, verify"),
        (["runs", "list"], "runs has no action 'list': ls, show, rm, verify"),
        (["path", "a.pt"], "B"),
        (["path", "a.pt", "b.pt", "--moddel", "x"], "--model"),
        (["path", "a.pt", "b.pt", "--epochs", "ten"], "--epochs"),
        (["path", "a.pt", "b.pt", "--bends", "0"], "0 is below 1, the smallest possible value"),
        (["path", "a.pt", "b.pt", "--lr", "nan"], "nan is below 0.0"),
        (["study", "restarts", "--scale", "tiny"], "'smoke', 'small', 'standard', 'paper'"),
    ],
)
def test_wrong_words(words, said, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert said in " ".join(err.replace("│", " ").split())
    assert out == ""


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UsageError("wrong"), 2, "closerlook: wrong\n"),
        (StoreError("broken"), 1, "closerlook: broken\n"),
        (PermissionError(13, "Permission denied", "x"), 1, "closerlook: x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "the same command goes on from there\n"),
    ],
)
def test_errors_are_one_line_and_a_status(error, status, said, capsys, monkeypatch):
    def ends() -> int:
        """Do nothing."""
        raise error

    monkeypatch.setattr(verbs, "function_of", lambda verb: ends)
    assert main(["doctor"]) == status
    out, err = capsys.readouterr()
    assert err.endswith(said)
    assert out == ""
    assert "Traceback" not in err


def test_bugs_keep_their_traceback(monkeypatch):
    def ends() -> int:
        """Do nothing."""
        raise ZeroDivisionError

    monkeypatch.setattr(verbs, "function_of", lambda verb: ends)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_prints_of_user_code_stay_off_stdout(capsys, monkeypatch):
    def chatty() -> int:
        """Do nothing."""
        from closerlook.cli.answer import answer

        print("building the model")
        answer({"value": float("nan")}, "text", True)
        return 0

    monkeypatch.setattr(verbs, "function_of", lambda verb: chatty)
    assert main(["doctor"]) == 0
    assert capsys.readouterr() == ('{\n "value": null\n}\n', "building the model\n")


def test_a_reader_that_goes_away_ends_it_quietly():
    command = f"{sys.executable} -m closerlook show restarts | head -n 1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("# Restarts")
    assert ended.stderr == ""

"""The entry of the command: find the verb, parse its arguments, call it, and turn errors into one line and a status."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib.metadata import version
from inspect import cleandoc
from shutil import get_terminal_size
from textwrap import fill, indent
from typing import Any

import tyro

from closerlook.cli import verbs
from closerlook.cli.answer import only_answers
from closerlook.launch.memory import keep_freed_memory

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        _say("stopped; what was finished is kept, and the same command goes on from there")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away, as `head` does: nobody is left to talk to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        from closerlook.cli import failures

        if not failures.is_expected(error):
            raise
        _say("\n".join(failures.lines(error)))
        return WRONG_USE if failures.is_wrong_use(error) else FAILED


def _run(words: list[str]) -> int:
    if words in (["-h"], ["--help"]):
        print(verbs.overview())
        return DONE
    if words == ["--version"]:
        print(version("closerlook"))
        return DONE
    found = verbs.find(words)
    if found is not None:
        return _called(*found)
    if len(words) == 2 and words[1] in ("-h", "--help") and verbs.is_group(words[0]):
        print(verbs.overview(words[0] + " "))
        return DONE
    print(verbs.overview() if not words else f"closerlook: {verbs.unknown(words)}", file=sys.stderr)
    return WRONG_USE


def _called(verb: str, words: list[str]) -> int:
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)
    function = verbs.function_of(verb)
    if {"-h", "--help"} & set(words):
        print(_description(verb, function) + "\n")
    try:
        call = tyro.cli(_bound(function), prog=f"closerlook {verb}", args=words, config=config, description=" ")
    except SystemExit as stop:  # tyro's own: 0 after --help, 2 after wrong arguments
        return stop.code if isinstance(stop.code, int) else WRONG_USE
    keep_freed_memory()
    with only_answers():
        status = call()
    if sys.stdout is not None:  # it can be closed from the start
        sys.stdout.flush()
    return status


def _bound(function: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """The function with its arguments filled in, not called yet."""

    @wraps(function)
    def bind(*positional: Any, **named: Any) -> Callable[[], int]:
        return partial(function, *positional, **named)

    return bind


def _description(verb: str, function: Callable[..., int]) -> str:
    """The docstring without its parameters, which stand beside the options."""
    head, _, rest = f"closerlook {verb}: {cleandoc(function.__doc__ or '')}".partition("\n\nParameters\n")
    _, _, examples = (rest or head).partition("Examples\n--------\n")
    width = min(100, get_terminal_size().columns)
    blocks = [fill(paragraph, width) for paragraph in head.partition("\n\nExamples\n")[0].split("\n\n")]
    return "\n\n".join([*blocks, *(["examples:\n" + indent(examples, "  ")] if examples else [])])


def _say(text: str) -> None:
    print(f"closerlook: {text}", file=sys.stderr)

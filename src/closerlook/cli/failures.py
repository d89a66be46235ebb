"""What an error says on the terminal: one readable line per problem, with the key, the cause and close matches."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from closerlook.cli.keys import walk
from closerlook.errors import CloserlookError, UsageError
from closerlook.runs import recipe

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing", "missing_argument")
_WHOLE = (*_UNKNOWN, *_MISSING, "union_tag_invalid")  # these say it all without the value that was given


def is_expected(error: Exception) -> bool:
    """Whether an error says all by itself, so that a traceback would only hide it."""
    return isinstance(error, CloserlookError | ValidationError | OSError)


def is_wrong_use(error: Exception) -> bool:
    """Whether what was typed has to change, rather than something that went wrong on the way."""
    return isinstance(error, UsageError | ValidationError)


def lines(error: Exception) -> list[str]:
    """The lines that say what is wrong and what to do."""
    if isinstance(error, ValidationError):
        return problems(error)
    if isinstance(error, OSError) and error.strerror:
        return [f"{error.filename}: {error.strerror}" if error.filename else error.strerror]
    return [str(error)]


def problems(error: ValidationError) -> list[str]:
    """One line per key of a recipe that is unknown, missing or wrong."""
    kind: type[BaseModel] | None = getattr(recipe, error.title, None)
    schema = kind.model_json_schema() if kind else {}
    said: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for each in _likely([dict(each) for each in error.errors()]):
        shown, known = walk(schema, each["loc"])
        where = ".".join(shown)
        said.setdefault(where, []).append(_said(each, known))
        given[where] = "" if each["type"] in _WHOLE else f", not {each['input']!r}"
    return [
        f"{where}: {' or '.join(dict.fromkeys(alternatives))}{given[where]}" for where, alternatives in said.items()
    ]


def _likely(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the alternatives that the given `kind` ruled out."""
    ruled_out = {each["loc"][:-1] for each in errors if each["type"] == "literal_error" and each["loc"][-1] == "kind"}
    likely = [each for each in errors if not any(each["loc"][: len(place)] == place for place in ruled_out)]
    return likely or errors


def _said(each: Mapping[str, Any], known: Sequence[str]) -> str:
    if each["type"] in _UNKNOWN:
        close = get_close_matches(str(each["loc"][-1]), known, n=2)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"unknown key{hint} (known: {', '.join(known)})"
    if each["type"] in _MISSING:
        return "missing"
    if each["type"] == "union_tag_invalid":
        return f"no {each['ctx']['tag']!r} here; choose one of {each['ctx']['expected_tags']}"
    return str(each["msg"]).replace("Input should be", "must be").removeprefix("Value error, ")

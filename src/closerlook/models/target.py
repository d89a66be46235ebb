"""``package.module:function`` as text, resolved to the function."""

import importlib
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from closerlook.errors import UsageError


def is_target(text: str) -> bool:
    """Whether a name is of the form ``package.module:function`` and not a built-in one."""
    return ":" in text


def load_target(text: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names; the working folder is searched first.

    The working folder stays on ``sys.path``, as with ``python -m``: the function may import its neighbours when it
    is called. The standard library is refused: it holds no networks and no data, but functions that a recipe from
    somebody else could name to run a command.

    Raises
    ------
    UsageError
        The text has another form, the module or the name in it does not exist or is Python's own, or the name is not
        callable.

    Examples
    --------
    >>> load_target("torch.nn:Linear")(2, 3)
    Linear(in_features=2, out_features=3, bias=True)
    """
    module_name, _, name = text.partition(":")
    if not module_name or not name:
        raise UsageError(f"cannot read {text!r}; write package.module:function")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise UsageError(f"{text}: a module of that name is a part of Python, not of yours; name a function of yours")
    module = _module(module_name, text)
    if not hasattr(module, name):
        close = get_close_matches(name, dir(module), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(f"{text}: {getattr(module, '__file__', module_name)} has no {name}{hint}")
    function = getattr(module, name)
    if not callable(function):
        raise UsageError(f"{text} is a {type(function).__name__}, not a function")
    return function


def _module(name: str, text: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise UsageError(f"{text}: no module {missing} in {here} or among the installed packages") from error
        raise UsageError(f"{text}: importing {name} failed, it needs the module {missing}") from error

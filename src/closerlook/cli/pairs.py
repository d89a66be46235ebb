"""``key=value`` on the command line as settings."""

import json
from collections.abc import Sequence
from typing import Any

from closerlook.errors import UsageError


def read_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """The settings of ``key=value`` words; a value is read as JSON where it is JSON, else as text.

    Examples
    --------
    >>> read_pairs(["width=0.25", "head=linear"])
    {'width': 0.25, 'head': 'linear'}
    """
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise UsageError(f"cannot read {pair!r}; write KEY=VALUE, such as width=0.25")
        settings[key.strip()] = _value(value.strip())
    return settings


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key such as ``optimizer.lr``; folders on the way are made."""
    *path, last = key.split(".")
    inner = settings
    for name in path:
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{key}: {name} holds a value and no settings")
    inner[last] = value

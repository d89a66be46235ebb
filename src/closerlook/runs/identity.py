"""A recipe's identity: the hash of what differs from the defaults, and of every choice's tag."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from closerlook.errors import UsageError

_TAGS = ("kind", "version")


def identity(recipe: BaseModel) -> str:
    """SHA-256, as hex, of the recipe's canonical form.

    Settings equal to their default are left out, so that a setting added later keeps old runs valid; tags
    (which recipe, which schedule, which version) always stay in. Equal recipes have equal identities: 1 and 1.0,
    lists and tuples count as the same.
    """
    text = json.dumps(canonical(recipe), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def run_id(recipe: BaseModel) -> str:
    """The name of a recipe's run: its kind and the first eight digits of its identity."""
    return f"{canonical(recipe)['kind']}-{identity(recipe)[:8]}"


def canonical(value: Any) -> Any:
    """Plain JSON types without what equals its default."""
    if isinstance(value, BaseModel):
        defaults = {
            name: info.get_default(call_default_factory=True) for name, info in type(value).model_fields.items()
        }
        return _differing(value, defaults)
    if is_dataclass(value) and not isinstance(value, type):
        return _differing(value, {field.name: _default(field) for field in fields(value)})
    if isinstance(value, Mapping):
        return {name: canonical(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _differing(value: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    held = {name: getattr(value, name) for name in defaults}
    return {name: canonical(item) for name, item in held.items() if name in _TAGS or item != defaults[name]}


def source_hash(function: Callable[..., Any]) -> str:
    """Hash of the source file of a user's function: a changed model or data set is another recipe.

    Raises
    ------
    UsageError
        It has no source file, as a built-in function or one typed into an interpreter.
    """
    try:
        content = Path(inspect.getsourcefile(inspect.getmodule(function) or function) or "").read_bytes()
    except (TypeError, OSError) as error:
        raise UsageError(f"{function!r} has no source file to tell changes by; write it into a module") from error
    return hashlib.sha256(content).hexdigest()[:16]

"""The user's functions as parts of recipes, each with the hash of its source."""

from inspect import signature
from typing import TypeVar

from closerlook.errors import UsageError
from closerlook.models import is_target, load_target
from closerlook.runs.identity import source_hash
from closerlook.runs.recipe import DataSpec, ModelSpec

Spec = TypeVar("Spec", DataSpec, ModelSpec)


def with_source(spec: Spec) -> Spec:
    """A model or data that knows the source of the user's function, so that a changed one makes another recipe.

    Raises
    ------
    UsageError
        There is no such function, or it does not take these options.
    """
    if not is_target(spec.name):
        return spec.model_copy(update={"source": None})
    function = load_target(spec.name)
    try:
        signature(function).bind(**getattr(spec, "options", {}))
    except TypeError as error:
        raise UsageError(f"{spec.name}{signature(function)}: {error}") from error
    return spec.model_copy(update={"source": source_hash(function)})

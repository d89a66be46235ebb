"""The user's files as parts of recipes, each with the hash of its content."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from closerlook import files
from closerlook.errors import UsageError
from closerlook.landscape import polychain
from closerlook.runs.recipe import File
from closerlook.steps.setting import network
from closerlook.steps.sourced import with_source as with_source
from closerlook.weights import Point, WeightSpace


def weights(checkpoints: Sequence[Path], specs: Mapping[str, Any]) -> list[Point]:
    """The checkpoints' weights, all of which fit the network of `specs` and each other.

    Raises
    ------
    UsageError
        A file is missing, holds no state dict, does not fit, is of another type, or holds NaN.
    """
    space = WeightSpace(network(specs["model"], specs["data"], seed=0))
    return list(polychain([space.point(path) for path in checkpoints]).points)


def references(checkpoints: Sequence[Path]) -> list[File]:
    """The checkpoints as recipes name them: where they lie, and the hash of what they hold."""
    return [File(path=str(path.resolve()), sha256=files.sha256(path)) for path in checkpoints]


def labels(checkpoints: Sequence[Path]) -> list[str]:
    """Short names: the files' own where those differ, else their paths; bytes that are no text are spelled out.

    Examples
    --------
    >>> labels([Path("runs/a.pt"), Path("runs/b.pt")]), labels([Path("x/a.pt"), Path("y/a.pt")])
    (['a.pt', 'b.pt'], ['x/a.pt', 'y/a.pt'])
    """
    short, long = [path.name for path in checkpoints], [path.as_posix() for path in checkpoints]
    for names in ([name.encode(errors="backslashreplace").decode() for name in given] for given in (short, long)):
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"the same checkpoint is named twice: {', '.join(map(str, checkpoints))}; name each once")

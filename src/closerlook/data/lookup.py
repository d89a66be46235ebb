"""Where data sets are looked for, in which order, and what is said when one is nowhere."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import indent
from typing import NamedTuple, TypeVar

from closerlook.errors import DataMissingError, UsageError

VARIABLE = "CLOSERLOOK_DATA"
T = TypeVar("T")


class Place(NamedTuple):
    """A folder to look in; `named` when the user pointed to it, so that faulty files there are an error."""

    folder: Path
    named: bool


def cache(name: str) -> Path:
    """Folder of the user's cache for the data set `name`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "closerlook" / name


def places(name: str, data_dir: str | Path | None = None) -> list[Place]:
    """The folders to look in, first to last.

    A `data_dir` is the only place when it is given. Otherwise: the folder in the environment variable
    ``CLOSERLOOK_DATA``, the user's cache, then ``share/datasets/<name>`` of the Python installation and of the system.
    A folder of the user's may hold the files itself or in a folder called `name`.
    """
    if data_dir is not None:
        return _named(Path(data_dir), name)
    variable = os.environ.get(VARIABLE)
    found = _named(Path(variable), name) if variable else []
    shares = [Path(sys.prefix, "share"), Path("/usr/share"), Path("/usr/local/share")]
    shares += [Path(folder) for folder in os.environ.get("XDG_DATA_DIRS", "").split(":") if folder]
    system = [share / "datasets" / name for share in dict.fromkeys(shares)]
    return found + [Place(folder, named=False) for folder in (cache(name), *system)]


def read_first(
    name: str, files: Sequence[str], data_dir: str | Path | None, read: Callable[[Path], T]
) -> tuple[Path, T] | None:
    """The first place that holds every one of `files`, and what `read` makes of that folder; None when there is none.

    Raises
    ------
    UsageError
        `read` refuses the files of a folder that the user named. Elsewhere that is one line on stderr, and the search
        goes on.
    """
    for place in places(name, data_dir):
        if not all((place.folder / file).is_file() for file in files):
            continue
        try:
            return place.folder, read(place.folder)
        except (OSError, UsageError) as error:
            if place.named:
                raise UsageError(str(error)) from error
            print(f"closerlook: {error}; looking further", file=sys.stderr)
    return None


def missing(name: str, data_dir: str | Path | None, ways: Sequence[str], tried: Sequence[str] = ()) -> DataMissingError:
    """The error that lists what was searched, what was tried and the ways out."""
    searched = [str(place.folder) for place in places(name, data_dir)]
    blocks = {f"no {name} files in": searched, "fetching failed:": tried, "ways out:": ways}
    told = [f"{title}\n{indent(chr(10).join(lines), '  ')}" for title, lines in blocks.items() if lines]
    return DataMissingError("\n".join(told))


def _named(folder: Path, name: str) -> list[Place]:
    return [Place(folder.expanduser() / inside, named=True) for inside in (".", name)]

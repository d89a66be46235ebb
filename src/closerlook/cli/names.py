"""Names that are known, and close ones for those that are not."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from closerlook.errors import UsageError

_SEED = re.compile("[0-9]{1,18}")  # below 2^63
_MOST_SEEDS = 1000


def known(what: str, name: str, names: Iterable[str], where: str = "") -> str:
    """The name itself when it is one of `names`.

    Raises
    ------
    UsageError
        It is none; close ones are named, or all.
    """
    names = list(names)
    if name in names:
        return name
    close = get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there is {listed(names)}"
    raise UsageError(f"no {what} {name!r}{where}; {hint}")


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    return (", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")) or "none"


def seed_list(text: str | None) -> tuple[int, ...] | None:
    """Seeds written as ``100-102`` or ``100,105``.

    Examples
    --------
    >>> seed_list("100-102,105")
    (100, 101, 102, 105)
    """
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _SEED.fullmatch(first) or (dash and not _SEED.fullmatch(last)):
            raise UsageError(f"cannot read the seeds {text!r}; write 100-102 or 100,105")
        asked = range(int(first), int(last or first) + 1)
        if len(asked) > _MOST_SEEDS:
            raise UsageError(f"{part} are {len(asked):,} seeds; a study has at most {_MOST_SEEDS:,}")
        seeds += asked
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError(f"the seeds {text!r} are empty or name one twice; write 100-102 or 100,105")
    return tuple(seeds)

"""``closerlook runs rm`` and ``closerlook runs verify``: fewer runs, and sound ones."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from closerlook.cli.answer import answer
from closerlook.cli.options import DryRun, Json, Runs
from closerlook.cli.stored import find, needs
from closerlook.errors import UsageError
from closerlook.runs.inspection import Inspection, inspect, leftovers
from closerlook.runs.store import Store, only_one

Names = Annotated[Positional[tuple[str, ...]], arg(metavar="NAME ...", help_behavior_hint="")]


def rm(names: Names, runs: Runs = Path("runs"), dry_run: DryRun = False, json: Json = False) -> int:
    """Delete runs; what was made from them stays, and is named.

    Parameters
    ----------
    names
        The runs, each by its name or the beginning of it.
    dry_run
        Show what would be deleted.

    Examples
    --------
    closerlook runs rm train-1a2b3c4d profile-5e6f7a8b
    """
    store = Store(runs)
    chosen = [find(name, store).id for name in names]
    if not chosen:
        raise UsageError("which runs? closerlook runs ls names them")
    users = sorted({folder.id for folder in store.runs() if folder.id not in chosen and needs(folder, chosen)})
    for name in () if dry_run else chosen:
        with only_one(store.folder(name).path / "LOCK"):
            pass  # a live process holds its run: that is refused, not waited for
        store.remove(name)
    done = "would be deleted" if dry_run else "deleted"
    lines = [f"{name} {done}" for name in chosen] + [f"{name} was made from it and stays" for name in users]
    answer(
        {"deleted": [] if dry_run else chosen, "would_delete": chosen, "made_from_them": users}, "\n".join(lines), json
    )
    return 0


def verify(names: Names = (), runs: Runs = Path("runs"), json: Json = False) -> int:
    """Compare every file of finished runs with the checksum that was taken when they finished, and look at the others.

    Of an unfinished run it is seen whether it can go on from its state. Exit status 1 when something is damaged; what
    to do is said then. Nothing is changed.

    Parameters
    ----------
    names
        The runs; all when none is named.

    Examples
    --------
    closerlook runs verify
    closerlook runs verify train-1a2b3c4d
    """
    store = Store(runs)
    found = [inspect(folder) for folder in [find(name, store) for name in names] or store.runs()]
    left = [] if names else leftovers(runs)
    answer([asdict(each) for each in found], "\n".join([*_told(found), *map(_half, left), *_summed(found, runs)]), json)
    return 1 if any(each.damage for each in found) else 0


def _told(found: Sequence[Inspection]) -> list[str]:
    damaged = [f"{each.run}: {what}" for each in found for what in each.damage]
    return damaged + [f"{each.run}: {what} (no damage)" for each in found for what in each.notes]


def _half(path: Path) -> str:
    return f"{path} was left half written by a killed process (no damage); it can be deleted"


def _summed(found: Sequence[Inspection], runs: Path) -> list[str]:
    finished = [each for each in found if each.done]
    broken = [each.run for each in finished if each.damage]
    others = [each for each in found if not each.done]
    stuck = f", {sum(bool(each.damage) for each in others)} of them damaged" if others else ""
    lines = [f"{len(finished)} finished runs checked, {len(broken)} damaged; {len(others)} unfinished{stuck}"]
    if broken:
        lines.append(f"repair: closerlook runs rm {' '.join(broken)} --runs {runs}, then the command that made them")
    return lines

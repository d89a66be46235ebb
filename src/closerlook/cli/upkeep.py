"""``closerlook runs rm`` and ``closerlook runs verify``: fewer runs, and sound ones."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from closerlook.cli.answer import answer
from closerlook.cli.options import DryRun, Json, Runs
from closerlook.cli.stored import damage, find, needs
from closerlook.errors import UsageError
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
    """Compare every file of finished runs with the checksum that was taken when they finished.

    Exit status 1 when a file is missing or changed; what to do is said then.

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
    folders = [find(name, store) for name in names] or store.runs()
    damages = {folder.id: damage(folder) for folder in folders}
    broken = [run for run, found in damages.items() if found]
    finished = [folder.id for folder in folders if folder.done]
    lines = [f"{run}: {what}" for run, found in damages.items() for what in found]
    lines.append(
        f"{len(finished)} finished runs checked, {len(broken)} damaged; {len(folders) - len(finished)} unfinished"
    )
    if broken:
        lines.append(f"repair: closerlook runs rm {' '.join(broken)} --runs {runs}, then the command that made them")
    told = [{"run": run, "done": run in finished, "damage": found} for run, found in damages.items()]
    answer(told, "\n".join(lines), json)
    return 1 if broken else 0

"""``closerlook runs``: list, show, delete and verify run folders."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from closerlook import files
from closerlook.cli.answer import answer, columns
from closerlook.cli.options import Json, Runs
from closerlook.cli.stored import find, row
from closerlook.cli.summary import described, summary
from closerlook.cli.upkeep import rm, verify
from closerlook.runs.store import Store

__all__ = ["ls", "rm", "show", "verify"]

Name = Annotated[Positional[str], arg(metavar="NAME", help_behavior_hint="")]


def ls(runs: Runs = Path("runs"), json: Json = False) -> int:
    """List the runs of a folder: what each is, whether it is done, and how long it took.

    Examples
    --------
    closerlook runs ls
    closerlook runs ls --runs elsewhere/runs --json
    """
    found = [row(folder) for folder in Store(runs).runs()]
    header = ("run", "state", "model", "data", "seconds")
    table = columns(header, [tuple(each[name] for name in header) for each in found])
    studies = [f"\nstudy in {path.parent}" for path in sorted(runs.glob("study-*/plan.json"))]
    answer(found, table + "".join(studies) if found else f"no runs in {runs}", json)
    return 0


def show(name: Name, runs: Runs = Path("runs"), json: Json = False) -> int:
    """Show one run: state, seconds, results, recipe, and where it was made.

    Parameters
    ----------
    name
        The run, or the beginning of its name as long as only one begins so.

    Examples
    --------
    closerlook runs show train-1a2b3c4d
    """
    folder = find(name, Store(runs))
    recipe, told = folder.recipe().model_dump(mode="json"), summary(folder)
    where = folder.made_in()
    text = f"{described(told)}\n\nrecipe:\n{files.to_json(recipe)}\nmade with:\n{files.to_json(where)}".rstrip()
    answer({**told, "recipe": recipe, "environment": where}, text, json)
    return 0

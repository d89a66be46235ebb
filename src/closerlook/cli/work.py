"""From recipes to finished runs, or to what they would cost."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from closerlook.cli.answer import answer, columns
from closerlook.launch import Progress, launch, pool
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import Recipe
from closerlook.runs.store import RunFolder, Store
from closerlook.steps.cost import cost


def finish(recipes: Iterable[Recipe], store: Store, jobs: int = 1) -> None:
    """Finish every recipe's run, with progress on stderr; finished ones are reused. One job runs in this process."""
    recipes = list(recipes)
    progress = Progress(len(recipes))
    try:
        with pool(jobs) as executor:
            launch(recipes, store, executor, jobs, progress)
    finally:
        progress.close()


def dry(recipes: Iterable[Recipe], store: Store, json: bool) -> int:
    """Answer with the steps and their costs; nothing is done."""
    rows = priced(recipes, store)
    answer({"steps": rows}, price_list(rows), json)
    return 0


def priced(recipes: Iterable[Recipe], store: Store) -> list[dict[str, Any]]:
    """One row per step: its run, whether it is done, what it costs, and its whole recipe."""
    rows = []
    for recipe in recipes:
        row = {"run": run_id(recipe), "state": state(store.folder(recipe)), **vars(cost(recipe))}
        rows.append({**row, "recipe": recipe.model_dump(mode="json")})
    return rows


def state(folder: RunFolder) -> str:
    """Where a run stands: ``done``, ``begun`` or ``to do``."""
    if folder.done:
        return "done"
    return "begun" if (folder.path / "environment.json").exists() else "to do"


def price_list(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table, and what is left to do."""
    header = ("run", "state", "optimizer steps", "images", "GFLOPs")
    table = columns(header, [(row["run"], row["state"], row["steps"], row["images"], gigaflops(row)) for row in rows])
    left = [row for row in rows if row["state"] != "done"]
    images = sum(row["images"] for row in left)
    total = f"left to do: {len(left)} of {len(rows)} steps, {images:,} images through the network (forward passes)"
    return f"{table}\n{total}"


def gigaflops(row: Mapping[str, Any]) -> float | None:
    """Billions of operations; None where they were not counted."""
    return row["flops"] / 1e9 if row["flops"] else None


def say(text: str) -> None:
    """A remark for people, on stderr."""
    print(text, file=sys.stderr, flush=True)

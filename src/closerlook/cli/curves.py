"""The steps of a path: read the segment, train a curve, read the curve; and their stored numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from closerlook.cli import profiles
from closerlook.cli.settings import Curve
from closerlook.landscape import Profile
from closerlook.landscape.heights import Definition
from closerlook.runs.identity import run_id
from closerlook.runs.recipe import Bend, ConnectRecipe, File, OptimizerSpec, ProfileRecipe, Recipe
from closerlook.runs.store import Store


def plan(
    ends: Sequence[File], specs: Mapping[str, Any], curve: Curve, reading: Mapping[str, Any], seed: int
) -> dict[str, Recipe]:
    """The recipes by what they are: ``segment``, and with a curve ``connect`` and ``curve``."""
    a, b = ends
    segment = ProfileRecipe(**reading, points=(a, b))
    if curve.epochs == 0:
        return {"segment": segment}
    connect = ConnectRecipe(
        **specs, a=a, b=b, curve=curve.kind, bends=curve.bends, epochs=curve.epochs, batch_size=curve.batch_size,
        optimizer=OptimizerSpec(lr=curve.lr, weight_decay=curve.weight_decay), precision=curve.precision,
        memory_format=reading["memory_format"], seed=seed,
    )  # fmt: skip
    bends = tuple(Bend(run=run_id(connect), index=index) for index in range(1, curve.bends + 1))
    along = ProfileRecipe(**reading, curve=curve.kind, points=(a, *bends, b))
    return {"segment": segment, "connect": connect, "curve": along}


def read(recipes: Mapping[str, Recipe], store: Store, definition: Definition, level: float) -> dict[str, Any]:
    """The stored numbers of finished steps."""
    result: dict[str, Any] = {"runs": {name: run_id(recipe) for name, recipe in recipes.items()}, "barriers": []}
    for name, recipe in recipes.items():
        folder = store.folder(recipe)
        if recipe.kind == "connect":
            result["training"] = {**recipe.model_dump(mode="json"), **folder.result("curve")}
        else:
            result[name] = folder.result("profile")
            result["barriers"] += profiles.barriers(name, Profile.from_dict(result[name]), definition, level)
    return result


def profiles_in(result: Mapping[str, Any]) -> dict[str, Profile]:
    """The profiles among the stored numbers."""
    return {name: Profile.from_dict(result[name]) for name in ("segment", "curve") if name in result}


def training(result: Mapping[str, Any]) -> list[str]:
    """What is to be said of the curve's training."""
    if "training" not in result:
        return []
    told, straight = result["training"], result["segment"]["length"]
    length = f"; {told['length'] / straight:.3g} times as long as the segment" if straight else ""
    lines = [f"Curve: {told['curve']}, trained bends: {told['bends']}, epochs: {told['epochs']}{length}."]
    if told["diverged"]:
        lines.append("The curve's training DIVERGED: what is read on it says nothing. Choose a smaller --lr.")
    return lines

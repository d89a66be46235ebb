"""Learning rates of the resilience study at scale small; write results/tune_resilience.json.

That of the modes is chosen by the validation accuracy of G, that of the curves by the training loss of the curve from G
to G' in its last epoch: neither is what the study judges. Then, at the chosen rates, the barrier of the curves to all
modes at the study's budget and at a larger one, to see what the budget does. Tuning seeds, no verdict. Run it with
``python benchmarks/tune_resilience.py``.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from closerlook.evidence import t_interval
from closerlook.files import write_json
from closerlook.landscape import Profile
from closerlook.launch import launch, pool
from closerlook.runs.environment import environment
from closerlook.runs.recipe import OptimizerSpec, Recipe
from closerlook.runs.store import Store
from closerlook.studies.resilience.recipe import Pairs
from closerlook.studies.resilience.settings import MODES, SCALES, Budget, Settings

OUT = Path(__file__).with_name("results") / "tune_resilience.json"
SMALL = SCALES["small"].model_copy(update={"shared": (), "aligned_on": None})
SEEDS = (0, 1, 2)
RATES = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
CURVE_RATES = (0.0125, 0.025, 0.05, 0.1, 0.2)
BUDGETS = (9, 30)


def roles(settings: Settings, seed: int, names: Iterable[str]) -> list[Recipe]:
    """Recipes of one seed by role, without the seed in it."""
    every = Pairs(settings.at(seed), seed, first=False).roles()
    return [every[name.replace("/", f"/{seed}/", 1)] for name in names]


def with_rate(rate: float) -> Settings:
    """The modes at another learning rate."""
    return SMALL.model_copy(update={"optimizer": OptimizerSpec(lr=rate)})


def with_curve(rate: float, epochs: int) -> Settings:
    """Curves at another learning rate and budget."""
    reads = SMALL.curve.read_at if epochs == SMALL.curve.epochs else ()
    return SMALL.model_copy(update={"curve": Budget(epochs=epochs, optimizer=OptimizerSpec(lr=rate), read_at=reads)})


def finish(store: Store, recipes: list[Recipe]) -> None:
    """Run what is not there yet."""
    with pool(2) as executor:
        launch(recipes, store, executor, 2, lambda event: None)


def last(store: Store, recipe: Recipe, name: str) -> float:
    """A number of the last epoch."""
    return float(store.folder(recipe).epochs()[-1][name])


def tuned(store: Store) -> dict[str, Any]:
    """Validation accuracy of G and loss of the curve to G', by learning rate and seed."""
    modes = {rate: [roles(with_rate(rate), seed, ["G/train"])[0] for seed in SEEDS] for rate in RATES}
    finish(store, [recipe for each in modes.values() for recipe in each])
    needed = ["G/train", "G'/train", "G'/curve"]
    curves = {rate: [roles(with_curve(rate, 9), seed, needed) for seed in SEEDS] for rate in CURVE_RATES}
    finish(store, [recipe for each in curves.values() for of_seed in each for recipe in of_seed])
    return {
        "validation accuracy of G": {
            f"{rate:g}": [last(store, recipe, "validation_accuracy") for recipe in each] for rate, each in modes.items()
        },
        "training loss of the curve to G'": {
            f"{rate:g}": [last(store, of_seed[-1], "loss") for of_seed in each] for rate, each in curves.items()
        },
    }


def barriers(store: Store, epochs: int) -> dict[str, list[float]]:
    """Barrier of training error on the trained curve to every mode, by seed."""
    settings = with_curve(SMALL.curve.optimizer.lr, epochs)
    needed = ["G/train", *(f"{mode}/{role}" for mode in MODES for role in ("train", "curve", "along"))]
    found = {seed: roles(settings, seed, needed) for seed in SEEDS}
    finish(store, [recipe for each in found.values() for recipe in each])
    read = {seed: [store.folder(each).result("profile") for each in found[seed][3::3]] for seed in SEEDS}
    heights = {
        seed: [Profile.from_dict(each).barrier("train", "error").value for each in of_seed]
        for seed, of_seed in read.items()
    }
    return {mode: [heights[seed][place] for seed in SEEDS] for place, mode in enumerate(MODES)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    store = Store(parser.parse_args().runs)
    found = {**tuned(store), "barriers": {f"{epochs} epochs": barriers(store, epochs) for epochs in BUDGETS}}
    write_json(OUT, {**found, "seeds": SEEDS, "environment": environment()})
    for title in ("validation accuracy of G", "training loss of the curve to G'"):
        for rate, values in found[title].items():
            print(f"{title:35} {rate:>7}  {np.mean(values):.4f}")
    for budget, by_mode in found["barriers"].items():
        for mode, values in by_mode.items():
            low, high = 100 * np.array(t_interval(np.subtract(values, by_mode["G'"] if mode != "G'" else 0.0)))
            print(f"{budget:10} {mode:3}", *(f"{100 * value:5.1f}" for value in values), f"[{low:.1f}, {high:.1f}]")


if __name__ == "__main__":
    main()

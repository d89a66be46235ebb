"""Failure boundaries with batch norm in other places; write results/warmup_normalisation.json.

In the warmup study the deep block is also the one without batch norm. Here VGG-11 at the study's small scale has its
norms nowhere, in the convolutions, everywhere, and everywhere but in the first block, and for each the largest learning
rate that trains is found without warmup (N), with all (W), with the head alone (WD) and with the first convolutions
alone (WB) warmed up. Tuning seeds, no verdict. Run it with ``python benchmarks/warmup_normalisation.py``.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from closerlook.files import write_json
from closerlook.runs.environment import environment
from closerlook.runs.recipe import BoundaryRecipe
from closerlook.runs.store import Store
from closerlook.steps import run_step
from closerlook.studies.warmup.arms import arms
from closerlook.studies.warmup.settings import SCALES, Network

OUT = Path(__file__).with_name("results") / "warmup_normalisation.json"
ARMS = ("N", "W", "WD", "WB:conv1-2")
SEEDS = (0, 1)
LOW, HIGH, FACTOR = 0.1, 10.0, 1.5


def networks() -> dict[str, Network]:
    """VGG-11 with batch norm in four places."""
    standard = SCALES["standard"]
    assert standard.boundaries is not None
    others = {name: other for name, other in standard.boundaries.others.items() if "vgg" in other.model.name}
    return {"norm in the convolutions": standard.network, **dict(reversed(others.items()))}


def boundary(root: Path, case: tuple[str, str, int]) -> dict[str, Any]:
    """One boundary; a second call reads what the first one stored."""
    name, arm, seed = case
    settings = SCALES["small"].at(seed).model_copy(update={"network": networks()[name]})
    recipe = BoundaryRecipe(
        train=arms(settings, seed, mapped=True)[arm], low=LOW, high=HIGH, factor=FACTOR,
        offset=float(np.random.default_rng([seed, 1]).random()),
    )  # fmt: skip
    store = Store(root)
    folder = store.create(recipe)
    run_step(str(folder.path))
    return {"network": name, "arm": arm, "seed": seed, **folder.result("boundary")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    cases = list(product(networks(), ARMS, SEEDS))
    with ProcessPoolExecutor(2) as pool:
        rows = list(pool.map(partial(boundary, options.runs), cases))
    write_json(OUT, {"factor": FACTOR, "boundaries": rows, "environment": environment()})
    for row in rows:
        print(f"{row['network']:40} {row['arm']:12} seed {row['seed']}  {row['boundary']:.3g} {row['beyond'] or ''}")


if __name__ == "__main__":
    main()

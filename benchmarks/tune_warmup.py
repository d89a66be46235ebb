"""Choose the learning rate of the warmup study at scale small; write results/tune_warmup.json.

The rule stands in studies/warmup/settings.py: the lowest rate of the grid at which training without warmup (N) fails
in all of the tuning seeds and with warmup (W) in none. Nothing else is looked at: from the lowest rate on, N is run,
and where it fails in all, W. Run it with ``python benchmarks/tune_warmup.py``.
"""

import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from closerlook.files import write_json
from closerlook.runs.environment import environment, one_thread
from closerlook.steps.train import trained
from closerlook.studies.warmup.arms import arms
from closerlook.studies.warmup.settings import FAILS_BELOW, RATES, SCALES, TUNING_SEEDS

OUT = Path(__file__).with_name("results") / "tune_warmup.json"
CORES = 2


def outcome(rate: float, arm: str, seed: int) -> dict[str, Any]:
    """One training; it fails where it diverges or ends below the validation accuracy of the rule."""
    recipe = arms(SCALES["small"].at(seed), seed, mapped=False)[arm]
    recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"lr": rate})})
    started = time.process_time()
    with one_thread(), TemporaryDirectory() as folder:
        result = trained(recipe, Path(folder))
    accuracy = None if result.diverged_at is not None else result.history[-1]["validation_accuracy"]
    fails = accuracy is None or accuracy < FAILS_BELOW
    told = {"validation_accuracy": accuracy, "diverged_at": result.diverged_at, "fails": fails}
    return {"rate": rate, "arm": arm, "seed": seed, **told, "cpu_s": round(time.process_time() - started, 1)}


def main() -> None:
    rows: list[dict[str, Any]] = []
    chosen = None
    with ProcessPoolExecutor(CORES) as pool:
        for rate in RATES:
            without = list(pool.map(partial(outcome, rate, "N"), TUNING_SEEDS))
            rows += without
            fails = all(row["fails"] for row in without)
            if fails:
                with_warmup = list(pool.map(partial(outcome, rate, "W"), TUNING_SEEDS))
                rows += with_warmup
                if not any(row["fails"] for row in with_warmup):
                    chosen = rate
                    break
    write_json(OUT, {"chosen": chosen, "fails_below": FAILS_BELOW, "runs": rows, "environment": environment()})
    for row in rows:
        print(row)
    print("chosen:", chosen)


if __name__ == "__main__":
    main()

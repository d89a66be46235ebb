"""Measure what a common grid of learning rates does to boundary shares; write results/boundary_grid.json.

Truth: an arm whose boundary lies exactly half way, in log learning rate, between those of no warmup and full warmup, so
that every "yes" and every "no" is wrong. All boundaries of a seed are read by bisection on a grid of factor 1.25, which
is the same for all seeds or shifted at random by seed. A seed whose full warmup gains less than a factor 1.5 has no
share, which leaves its study open. Run it with ``python benchmarks/boundary_grid.py``.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closerlook.evidence.paired import sides
from closerlook.files import write_json

OUT = Path(__file__).with_name("results") / "boundary_grid.json"
STEP = np.log(1.25)
LEAST = 1.5  # a smaller gain of full warmup cannot be divided by: two steps of the grid
SEEDS = (5, 8)
GAINS = (2, 4, 8)  # boundary of full warmup over that of no warmup
SCATTERS = (0.02, 0.1, 0.2)  # standard deviation over seeds of a log boundary
PLACES = 8  # of the boundaries relative to the grid


def shares(
    gain: float, scatter: float, n: int, draws: int, shifted: bool, place: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Shares of the arm half way, [draws, n]."""
    shift = generator.uniform(0, STEP, (draws, n)) if shifted else np.zeros((draws, n))
    none, half, full = (
        _read(place + part * np.log(gain) + generator.normal(0, scatter, (draws, n)), shift) for part in (0, 0.5, 1)
    )
    return np.divide(half - none, full - none, out=np.full((draws, n), np.nan), where=full - none >= np.log(LEAST))


def _read(boundary: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    return (np.floor((boundary - shift) / STEP) + 0.5) * STEP + shift


def worst(gain: float, scatter: float, n: int, draws: int, shifted: bool) -> float:
    """Largest rate of a wrong "yes" or a wrong "no" over places relative to the grid."""
    found = []
    for place in STEP * np.arange(PLACES) / PLACES:
        side = sides(shares(gain, scatter, n, draws, shifted, place, np.random.default_rng(n)), margin=0.5)
        found += [float((side > 0).mean()), float((side < 0).mean())]
    return max(found)


def table(records: list[dict[str, Any]]) -> list[str]:
    """Markdown rows: gain and scatter, then common / shifted grid in percent for each number of seeds."""
    rows = {}
    for gain, scatter in product(GAINS, SCATTERS):
        case = [each for each in records if (each["gain"], each["scatter"]) == (gain, scatter)]
        cells = [f"{100 * each['common']:.1f} / {100 * each['shifted']:.1f}" for each in case]
        rows[gain, scatter] = f"| {gain} | {scatter:g} | {' | '.join(cells)} |"
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=40_000, help="simulated studies per case and place")
    draws = parser.parse_args().draws
    records = [
        {"gain": gain, "scatter": scatter, "n": n, "common": worst(gain, scatter, n, draws, shifted=False),
         "shifted": worst(gain, scatter, n, draws, shifted=True)}
        for gain, scatter, n in product(GAINS, SCATTERS, SEEDS)
    ]  # fmt: skip
    write_json(OUT, {"draws": draws, "factor": 1.25, "rates": records})
    print(*table(records), sep="\n")


if __name__ == "__main__":
    main()

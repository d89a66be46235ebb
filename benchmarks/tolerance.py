"""Barriers to a tolerance: how much less is read, and how often the interval holds; write results/tolerance.json.

Run it with ``python benchmarks/tolerance.py``. Two VGG-11-BN at 1/4 width are trained on 5,000 Fashion-MNIST images of
16x16 (seeds 0 and 1), and a curve between them. Their profiles of 61 points are read in full on the 10,000 test images,
with every image's loss kept, and once to each tolerance. Then 200 other orders of the images are drawn, and the same
procedure runs on the kept losses: how often does its interval hold the barrier of the full reading?
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

import closerlook as cl
from closerlook import data, models
from closerlook.data import TensorBatches
from closerlook.files import read_arrays, write_json
from closerlook.landscape.certify import Race
from closerlook.landscape.part import first_points
from closerlook.runs.environment import environment, one_thread

OUT = Path(__file__).with_name("results") / "tolerance.json"
POINTS, STATISTICS, LEVEL = 61, 1000, 0.95
OPTIONS: dict[str, Any] = {"width": 0.25, "head": "linear", "init": "he", "in_channels": 1, "image_size": 16}


def network(seed: int) -> torch.nn.Module:
    return models.build("vgg11_bn", seed=seed, **OPTIONS)


def trained(parts: data.Parts, seed: int, epochs: int) -> cl.Point:
    """A network from its own initial weights and data order."""
    loader = TensorBatches(*parts.train, 100, shuffle=True, order_seed=seed)
    settings: dict[str, Any] = {"lr": 0.2, "momentum": 0.9, "weight_decay": 1e-3, "schedule": cl.cosine()}
    return cl.train(network(seed), loader, epochs=epochs, seed=seed, autocast=torch.bfloat16, **settings).point


def seconds_of(work: Any) -> tuple[Any, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def study(path: cl.Subspace, parts: data.Parts, tolerances: list[float], draws: int) -> dict[str, Any]:
    """The full reading of one path, and the readings to each tolerance."""
    test, held = TensorBatches(*parts.test, 500), TensorBatches(*parts.statistics, 500)
    t = np.linspace(0, 1, POINTS)

    def read(**more: Any) -> cl.Profile:
        return cl.profile(network(0), path, {"test": test}, POINTS, stats_loader=held, level=LEVEL, **more)

    with tempfile.TemporaryDirectory() as folder:
        full, cpu = seconds_of(lambda: read(out=folder))
        losses = np.stack([read_arrays(Path(folder) / f"point-{i:04d}.npz")["test_loss"] for i in range(POINTS)])
    barrier = full.barrier("test")
    record: dict[str, Any] = {
        "full": {"barrier": barrier.value, "evaluations": full.evaluations, "cpu_s": round(cpu, 1),
                 "population_interval": [barrier.low, barrier.high], "largest_std": float(losses.std(1).max())},
    }  # fmt: skip
    start = first_points(t, len(path.points))
    for tolerance in tolerances:
        part, part_cpu = seconds_of(lambda tolerance=tolerance: read(tolerance=tolerance))
        found = part.barrier("test")
        record[f"tolerance {tolerance}"] = {
            "barrier": found.value, "interval": [found.low, found.high], "evaluations": part.evaluations,
            "times_fewer": round(full.evaluations / part.evaluations, 2), "cpu_s": round(part_cpu, 1),
            "points": len(part.t), "rounds": part.certificates["test"].rounds,
            "coverage": coverage(losses, t, start, tolerance, draws),
        }  # fmt: skip
        print(tolerance, record[f"tolerance {tolerance}"], file=sys.stderr)
    return record


def coverage(losses: np.ndarray, t: np.ndarray, start: list[int], tolerance: float, draws: int) -> dict[str, Any]:
    """How often the interval held over draws of the images' order, and the images that were read."""
    total, means = losses.shape[1], losses.mean(1)
    true = max(0.0, float(means.max() - max(means[0], means[-1])))
    held, widths, evaluations, points = 0, [], [], []
    for seed in range(draws):
        mixed = losses[:, np.random.default_rng(seed).permutation(total)]
        race = Race(t, _served(mixed), total, tolerance, LEVEL)
        found = race.run(start)
        held += int(found.low - 1e-12 <= true <= found.high + 1e-12)
        widths.append(max(found.high - found.value, found.value - found.low))
        points.append(len(race.losses))
        # What a profile reads besides: statistics at each point, and both ends with their own buffers.
        evaluations.append(sum(map(len, race.losses.values())) + len(race.losses) * STATISTICS + 2 * total)
    full = len(t) * (total + STATISTICS) + 2 * total
    exact = binomtest(held, draws).proportion_ci(0.95)
    return {
        "draws": draws, "held": held, "share": held / draws, "exact_95": [round(exact.low, 4), round(exact.high, 4)],
        "level": LEVEL, "reaches_level": bool(exact.high >= LEVEL), "largest_half_width": float(max(widths)),
        "evaluations": [int(q) for q in np.quantile(evaluations, [0, 0.5, 1])],
        "times_fewer": [round(float(full / q), 2) for q in np.quantile(evaluations, [1, 0.5, 0])],
        "points_read": [int(q) for q in np.quantile(points, [0, 0.5, 1])],
    }  # fmt: skip


def _served(losses: np.ndarray) -> Any:
    return lambda asked: [losses[point, low:high] for point, low, high in asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    with one_thread():
        source = data.load("fashion", resolution=16)
        parts = data.split(source, n_train=5000, n_validation=500, n_statistics=STATISTICS, seed=0)
        a, b = (trained(parts, seed, asked.epochs) for seed in (0, 1))
        loader = TensorBatches(*parts.train, 100, shuffle=True)
        curve = cl.connect(network(0), a, b, loader, epochs=6, lr=0.05, weight_decay=1e-3, autocast=torch.bfloat16)
        record = {
            "setting": {
                **OPTIONS,
                "points": POINTS,
                "images": 10_000,
                "statistics": STATISTICS,
                "epochs": asked.epochs,
            },
            "segment between two seeds": study(cl.line(a, b), parts, [0.01, 0.05], asked.draws),
            "trained curve": study(curve, parts, [0.01], asked.draws),
            "environment": environment(),
        }
    write_json(asked.out, record)


if __name__ == "__main__":
    main()

"""How often alignment finds a planted permutation, and what barriers it leaves; write results/alignment.json.

Run it with ``python benchmarks/alignment.py``; it needs the files of Fashion-MNIST (``closerlook doctor`` says whether
they are here). On one thread it takes about ten minutes.

*Planted*: the units of a trained network in random orders, and normal noise on every weight, in units of the spread of
its tensor; ten trials each. Counted are trials in which every unit of every group comes back, trials in which all do
that fire on some of the images (a rectified unit that is silent cannot be told from another one), and units of all
trials. *Starts*: the same for weight matching alone, from two starts. *Barriers*: pairs of networks that were trained
from different seeds on different orders of the same images, each pair of its own two seeds.
"""

import argparse
import json
import platform
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import closerlook as cl
from closerlook import data, models
from closerlook.alignment import Symmetry, trace
from closerlook.alignment.assignment import best_order
from closerlook.alignment.weight_matching import Weights, climbed, grown
from closerlook.data import TensorBatches

OUT = Path(__file__).with_name("results") / "alignment.json"
TRIALS, NOISE, PAIRS, POINTS = 10, (0.0, 0.1), 3, 9
METHODS = ("weights", "activations")
Setting = tuple[str, dict[str, Any], str, float, int]  # network, options, data, learning rate, epochs
PLANTED: dict[str, Setting] = {
    "mlp 64, 64": ("mlp", {"in_features": 64, "hidden": (64, 64)}, "digits", 0.05, 8),
    "vgg11, 1/4 width": ("vgg11", {"width": 0.25, "head": "linear", "image_size": 16}, "fashion", 0.02, 8),
    "vgg11_bn, 1/8 width": ("vgg11_bn", {"width": 0.125, "head": "linear", "image_size": 8}, "digits", 0.05, 8),
    "resnet20, 1/2 width": ("resnet20", {"width": 0.5}, "digits", 0.05, 8),
}
PAPER: dict[str, Setting] = {
    "vgg11_bn, paper's head, 1/8 width": (
        "vgg11_bn",
        {"width": 0.125, "image_size": 8, "dropout": 0.0},
        "digits",
        0.05,
        6,
    ),
}
TRAINED: dict[str, Setting] = {
    "mlp 512, 512": ("mlp", {"in_features": 64, "hidden": (512, 512)}, "digits", 0.05, 15),
    "vgg11, 1/4 width": ("vgg11", {"width": 0.25, "head": "linear", "image_size": 16}, "fashion", 0.02, 8),
    "vgg11_bn, 1/4 width": ("vgg11_bn", {"width": 0.25, "head": "linear", "image_size": 16}, "fashion", 0.05, 8),
}


def parts(name: str) -> data.Parts:
    sizes = {"digits": (1400, 200, 600, None), "fashion": (4000, 500, 1000, 16)}
    n, n_statistics, n_read, resolution = sizes[name]
    source = data.load(name, resolution=resolution)
    return data.split(source, n_train=n, n_validation=0, n_statistics=n_statistics, n_read=n_read, seed=0)


def trained(setting: Setting, seed: int) -> nn.Module:
    name, options, source, lr, epochs = setting
    built = options if name == "mlp" else {**options, "in_channels": 1}
    model, held = models.build(name, seed=seed, init="he", **built), parts(source)
    batches = TensorBatches(*held.train, 50, shuffle=True, order_seed=seed)
    point = cl.train(model, batches, lr=lr, weight_decay=5e-4, epochs=epochs, schedule=cl.cosine(), seed=seed).point
    return cl.loaded(model, point).eval()


def planted(setting: Setting) -> list[dict[str, Any]]:
    model, held = trained(setting, 0), parts(setting[2])
    images = TensorBatches(*held.statistics, 200)
    accuracy = cl.evaluate(model, TensorBatches(*(each[:1000] for each in held.test), 500)).accuracy
    symmetry, space, rows = trace(model, held.statistics.inputs[:2]), cl.WeightSpace(model), []
    fires = firing(model, images, len(symmetry.groups))
    for noise in NOISE:
        for method in METHODS:
            hits, seconds = [], time.process_time()
            for trial in range(TRIALS):
                b, orders = moved(symmetry, space, space.point(model), noise, np.random.default_rng(trial))
                found = cl.alignment(model, model, b, method, loader=images, seed=trial).permutations.values()
                hits.append(np.concatenate([one == np.argsort(two) for one, two in zip(found, orders, strict=True)]))
            right = np.stack(hits)
            rows.append(
                {"noise": noise, "method": method, "trials": TRIALS, "accuracy": accuracy, "units": right.shape[1],
                 "silent": int((~fires).sum()), "whole": int(right.all(1).sum()),
                 "whole_that_fire": int(right[:, fires].all(1).sum()), "units_right": float(right.mean()),
                 "units_right_that_fire": float(right[:, fires].mean()),
                 "cpu_seconds": (time.process_time() - seconds) / TRIALS}
            )  # fmt: skip
    return rows


def firing(model: nn.Module, images: TensorBatches, groups: int) -> np.ndarray:
    """Which units of all groups fire on some image; in networks with batch norm all do."""
    rows = cl.activations(model, images, ["*relu*"], conv="positions").rows
    if len(rows) != groups:
        return np.ones(sum(group.size for group in trace(model, images.inputs[:2]).groups), dtype=bool)
    return np.concatenate([np.asarray(values.std(0) > 0) for values in rows.values()])


def moved(
    symmetry: Symmetry, space: cl.WeightSpace, point: cl.Point, noise: float, draws: np.random.Generator
) -> tuple[cl.Point, list[np.ndarray]]:
    """A point with its units in random orders and noise on its weights, and the orders."""
    orders = [best_order(draws.standard_normal((group.size, group.size)), group.blocks) for group in symmetry.groups]
    found = symmetry.moved(space, point, orders)
    spread = torch.empty_like(found.vector)
    for _, _, span in space.slices():
        spread[span] = found.vector[span].std(correction=0)
    vector = found.vector + noise * spread * torch.from_numpy(draws.standard_normal(space.size)).float()
    return cl.Point(vector, found.buffers), orders


def starts(setting: Setting) -> dict[str, int]:
    """In how many of 12 runs (three planted permutations, four random orders of the groups) each start finds all."""
    model, held = trained(setting, 0), parts(setting[2])
    symmetry, space = trace(model, held.statistics.inputs[:2]), cl.WeightSpace(model)
    count, found = len(symmetry.groups), {"as it is": 0, "grown from the input": 0}
    for trial in range(3):
        b, orders = moved(symmetry, space, space.point(model), 0.1, np.random.default_rng(trial))
        sides = [
            {name: point.vector[span].view(shape).double() for name, shape, span in space.slices()}
            for point in (space.point(model), b)
        ]
        weights = Weights(symmetry, *sides)
        begun = {"as it is": symmetry.identity(), "grown from the input": grown(weights, range(count))}
        for (name, start), seed in product(begun.items(), range(4)):
            end = climbed(weights, start, np.random.default_rng(seed))
            found[name] += all(np.array_equal(one, np.argsort(two)) for one, two in zip(end, orders, strict=True))
    return found


def barriers(setting: Setting) -> list[dict[str, Any]]:
    held, rows = parts(setting[2]), []
    splits = {"train": TensorBatches(*held.read, 500), "test": TensorBatches(*(each[:1000] for each in held.test), 500)}
    for pair in range(PAIRS):
        a, b = (trained(setting, 2 * pair + side) for side in (0, 1))
        errors = [cl.evaluate(net, splits["test"]).error for net in (a, b)]
        for method in METHODS:
            started = time.process_time()
            found = cl.aligned_barriers(
                a, a, b, splits, method, points=POINTS, stats_loader=TensorBatches(*held.statistics, 500)
            )
            heights = {
                name: {f"{row.split} {row.metric}": row.barrier for row in table.itertuples()}
                for name, table in found.to_frame().groupby("line", sort=False)
            }
            rows.append(
                {"pair": pair, "method": method, "test_errors": errors, "barriers": heights,
                 "distance_before": found.alignment.distance_before, "distance_after": found.alignment.distance_after,
                 "output_difference": found.alignment.output_difference, "tried": found.alignment.tried,
                 "cpu_seconds": time.process_time() - started}
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("planted", "starts", "barriers"))
    only = parser.parse_args().only
    torch.set_num_threads(1)
    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    results |= {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    measures = (("planted", PLANTED, planted), ("starts", PLANTED | PAPER, starts), ("barriers", TRAINED, barriers))
    for part, settings, measure in measures:
        if only not in (None, part):
            continue
        for name, setting in settings.items():
            results.setdefault(part, {})[name] = measure(setting)
            print(part, name, json.dumps(results[part][name]), flush=True)
            OUT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

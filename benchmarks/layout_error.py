"""What layout and precision do to a loss, on trained networks and between them; write results/layout_error.json.

Run it with ``python benchmarks/layout_error.py``. Two seeds below 100 of each network are trained on scikit-learn's
digits; test losses are read at 9 points of the straight line between them, in both layouts and both precisions, with
batch-norm statistics estimated in the same way. Shown: the largest relative difference of a mean loss over the line,
the largest difference of a mean loss and of one example's loss in nats.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import closerlook as cl
from closerlook import data, models
from closerlook.batches import Feed
from closerlook.data import TensorBatches
from closerlook.evaluation import estimate_batch_stats, read
from closerlook.files import write_json
from closerlook.layout import in_layout
from closerlook.runs.environment import environment
from closerlook.views import borrowed

OUT = Path(__file__).with_name("results") / "layout_error.json"
NETWORKS: dict[str, dict[str, Any]] = {
    "vgg11_bn": {"width": 0.5, "head": "linear", "init": "he", "in_channels": 1, "image_size": 8},
    "resnet20": {"in_channels": 1},
}
WAYS: dict[str, tuple[torch.memory_format, torch.dtype | None]] = {
    "channels_last fp32": (torch.channels_last, None), "contiguous fp32": (torch.contiguous_format, None),
    "channels_last bf16": (torch.channels_last, torch.bfloat16),
    "contiguous bf16": (torch.contiguous_format, torch.bfloat16),
}  # fmt: skip
EPOCHS, POINTS = 10, 9


def losses(name: str) -> dict[str, np.ndarray]:
    """Losses [points, n] of the test images on the line between two trained networks, by way of computing."""
    source = data.load("digits")
    train = TensorBatches(source.prepare(source.train_inputs), source.train_targets, 50, shuffle=True)
    test = TensorBatches(source.prepare(source.test_inputs), source.test_targets, 360)
    a, b = (
        cl.train(
            models.build(name, seed=seed, **NETWORKS[name]), train, lr=0.05, momentum=0.9, epochs=EPOCHS, seed=seed
        )
        for seed in (0, 1)
    )
    line, model = cl.line(a.point, b.point), models.build(name, **NETWORKS[name])
    space, statistics = cl.WeightSpace(model), TensorBatches(train.inputs, train.targets, 500)
    found: dict[str, np.ndarray] = {}
    for way, (layout, autocast) in WAYS.items():
        feed, rows = in_layout(Feed(torch.device("cpu"), autocast=autocast), layout), []
        with borrowed(model, space, memory_format=layout) as views:
            for t in np.linspace(0, 1, POINTS):
                views.buffer.copy_(views.encode(line.at(t).vector))
                estimate_batch_stats(model, statistics, feed)
                rows.append(read(model, test, feed).losses)
        found[way] = np.array(rows)
    return found


def differences(found: dict[str, np.ndarray], one: str, other: str) -> dict[str, float]:
    """How far two ways of computing lie apart."""
    means = found[one].mean(1), found[other].mean(1)
    return {
        "relative, mean loss": float(np.max(np.abs(means[0] - means[1]) / means[0])),
        "nats, mean loss": float(np.max(np.abs(means[0] - means[1]))),
        "nats, one example": float(np.max(np.abs(found[one] - found[other]))),
    }


def main() -> int:
    """Train, read, compare."""
    torch.set_num_threads(1)
    told: dict[str, Any] = {}
    for name in NETWORKS:
        found = losses(name)
        mean = found["channels_last fp32"].mean(1)
        told[name] = {"mean loss": {"ends": [float(mean[0]), float(mean[-1])], "largest": float(mean.max())}}
        for what, one, other in (
            ("layout, fp32", "channels_last fp32", "contiguous fp32"),
            ("layout, bf16", "channels_last bf16", "contiguous bf16"),
            ("bf16 over fp32", "channels_last fp32", "channels_last bf16"),
        ):
            told[name][what] = differences(found, one, other)
            print(name, what, {key: f"{value:.2e}" for key, value in told[name][what].items()}, flush=True)
    write_json(OUT, {"networks": told, "epochs": EPOCHS, "points": POINTS, "environment": environment()})
    return 0


if __name__ == "__main__":
    sys.exit(main())

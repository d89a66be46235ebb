"""What bends at high places gain: by AutoNEB's rule, by ours, and beside one bend that is trained as long.

    python benchmarks/refined_chain.py

Writes benchmarks/results/refined_chain.json: the highest loss on a chain along a ring-shaped valley of two weights,
from 12 starts, and the barriers between three pairs of small networks on digits. Half a minute on one thread.
"""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import closerlook as cl
from closerlook.files import write_json
from closerlook.landscape.intervals import Array
from closerlook.landscape.pivots import places, with_pivots
from closerlook.runs.environment import environment

BETWEEN, SHARE, MOST = 9, 0.2, 2
DOWN = cl.linear_decay(begin="0.5dur", end="0.9dur", final=0.01)
RATES = ((0.05, 0.9), (0.1, 0.0), (0.02, 0.9))  # learning rate and momentum
Rule = Callable[[Array], list[float]]


def autoneb(losses: Array) -> list[float]:
    """AutoNEB's places alone: above the line between the losses of two pivots."""
    rows = np.stack([losses[i : i + BETWEEN + 2] for i in range(0, len(losses) - 1, BETWEEN + 1)])
    alpha = np.linspace(0, 1, BETWEEN + 2)
    above = rows - rows[:, :1] * (1 - alpha) - rows[:, -1:] * alpha
    highest = sorted(range(len(rows)), key=lambda k: -above[k].max())[:MOST]
    chosen = [k for k in highest if above[k].max() > SHARE * np.ptp(losses)]
    return sorted(float(k + above[k].argmax() / (BETWEEN + 1)) for k in chosen)


RULES: dict[str, Rule] = {"autoneb": autoneb, "both": lambda losses: places(losses, BETWEEN, SHARE, MOST)}


class Ring(nn.Module):
    """Two weights; the loss is 4 (|w| - 1)^2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self) -> Tensor:
        """The loss."""
        return 4 * (self.w.norm() - 1) ** 2


def height(model: nn.Module, batch: Tensor) -> cl.Output:
    """The loss, for every example of a batch without content."""
    loss = model().expand(len(batch))
    return cl.Output(loss, loss[:, None])


def on_the_ring(rule: Rule, bends: int, lr: float, momentum: float, seed: int) -> dict[str, Any]:
    """The highest loss before and after three cycles."""
    ring, steps = Ring(), [torch.zeros(1)] * 40
    angle = 160 * np.pi / 180
    ends = [torch.tensor(end, dtype=torch.float64) for end in ([1.0, 0.0], [np.cos(angle), np.sin(angle)])]
    settings: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "batch_fn": height}
    chain = cl.connect(ring, *ends, steps, bends=bends, epochs=6, seed=seed, **settings)

    def losses(points: int) -> Array:
        return cl.profile(ring, chain, steps[:1], points=points, batch_fn=height).metric("train", "loss")

    before = float(losses(401).max())
    for cycle in range(3):
        found = rule(losses((len(chain.points) - 1) * (BETWEEN + 1) + 1))
        first, *inner, last = with_pivots(chain, found)[0].points
        chain = cl.connect(
            ring, first, last, steps, bends=len(inner), start=inner, epochs=4, schedule=DOWN, seed=seed + cycle,
            **settings,
        )  # fmt: skip
    return {"bends": bends, "before": before, "after": float(losses(401).max()), "bends_after": len(chain.points) - 2}


def network() -> nn.Sequential:
    """A small network with batch norm."""
    body = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()
    return nn.Sequential(*body, nn.Linear(32, 10))


def between_networks(seeds: Sequence[int], lr: float = 0.05) -> dict[str, float]:
    """Barriers on training images after 12 epochs in all: one bend, five from the beginning, refined to five."""
    pixels, classes = load_digits(return_X_y=True)
    held = TensorDataset(torch.tensor(pixels).float() / 8 - 1, torch.tensor(classes))
    fit, read, statistics = (
        DataLoader(torch.utils.data.Subset(held, range(*span)), size, shuffle=shuffled)
        for span, size, shuffled in (((0, 800), 50, True), ((0, 400), 100, False), ((800, 1200), 100, False))
    )
    ends, model = [], network()
    for seed in seeds:
        torch.manual_seed(seed)
        ends.append(
            cl.train(network(), fit, epochs=6, lr=0.1, momentum=0.9, schedule=cl.cosine(), seed=seed).point
        )  # fmt: skip
    bent = cl.connect(model, *ends, fit, epochs=4, lr=lr)
    cycles = [(4, lr), (4, lr)]
    paths = {
        "segment": cl.line(*ends),
        "one bend, 4 epochs": bent,
        "one bend": cl.connect(model, *ends, fit, epochs=12, lr=lr),
        "five bends": cl.connect(model, *ends, fit, bends=5, epochs=12, lr=lr),
        "refined": cl.refine_chain(model, bent, fit, read, cycles=cycles, stats_loader=statistics),
        "refined, decayed": cl.refine_chain(
            model, bent, fit, read, cycles=cycles, stats_loader=statistics, schedule=DOWN
        ),
    }
    return {
        name: cl.profile(model, path, read, points=49, stats_loader=statistics).barrier().value
        for name, path in paths.items()
    }


def main() -> None:
    """Run both and write what they gave."""
    torch.set_num_threads(1)
    cases = list(product((1, 3), RATES, range(2)))
    ring = {
        name: [on_the_ring(rule, bends, *rate, seed) for bends, rate, seed in cases] for name, rule in RULES.items()
    }
    digits = [between_networks((2 * pair, 2 * pair + 1)) for pair in range(3)]
    path = Path(__file__).parent / "results" / "refined_chain.json"
    write_json(path, {"ring": ring, "digits": digits, "environment": environment()})
    for name, found in ring.items():
        for key in ("before", "after"):
            values = [row[key] for row in found]
            print(f"ring, {name}, {key}: {min(values):.4f} to {max(values):.4f}")
    for name in digits[0]:
        print(f"digits, {name}:", " ".join(f"{row[name]:.3f}" for row in digits))


if __name__ == "__main__":
    main()

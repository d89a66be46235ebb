"""Price of watching the layers of a network while it trains; write results/observers.json.

Run it with ``python benchmarks/observers.py``. One thread, CPU time of the process. A round trains the same network
from the same weights with each setting in turn, in the other order every second round; the first steps of each training
are left out.
Ratios are over the training without an observer in the same round: median and quartiles over rounds.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import closerlook as cl
from closerlook import models
from closerlook.files import write_json
from closerlook.runs.environment import environment
from closerlook.training.loop import Tick

OUT = Path(__file__).with_name("results") / "observers.json"
UNTIMED, TIMED = 5, 20
ARMS: Mapping[str, Sequence[Any]] = {
    "nothing": (), "LayerTrace(every=1)": (cl.LayerTrace(),), "LayerTrace(every=10)": (cl.LayerTrace(every=10),),
}  # fmt: skip


def seconds_per_step(model: nn.Module, batch: tuple[Tensor, Tensor], watching: Sequence[Any]) -> float:
    """CPU seconds of a training step with its observers."""
    stamps: dict[int, float] = {}

    def stamp(tick: Tick) -> None:
        stamps[tick.step] = time.process_time()

    rate = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    cl.train(model, [batch] * (UNTIMED + TIMED), epochs=1, observers=[*watching, stamp], **rate)
    return (stamps[UNTIMED + TIMED] - stamps[UNTIMED]) / TIMED


def measured(model: nn.Module, batch: tuple[Tensor, Tensor], rounds: int) -> dict[str, Any]:
    """Milliseconds of a bare step, and the ratios of the others to it."""
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    for number in range(rounds + 1):
        names = list(ARMS) if number % 2 else list(reversed(ARMS))
        times = {name: seconds_per_step(model, batch, ARMS[name]) for name in names}
        if number:  # the first round warms up
            for name, value in times.items():
                found[name].append(1000 * value if name == "nothing" else value / times["nothing"])
    return {name if name != "nothing" else "bare step, ms": spread(values) for name, values in found.items()}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 4), "quartiles": [round(low, 4), round(high, 4)], "rounds": len(values)}


def main() -> None:
    """Measure and write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    rounds = options.parse_args().rounds
    torch.set_num_threads(1)
    source = torch.Generator().manual_seed(0)
    model = models.build("vgg11_bn", width=0.25, image_size=16, init="he", seed=0)
    batch = torch.randn(128, 3, 16, 16, generator=source), torch.randint(0, 10, (128,), generator=source)
    name = f"vgg11_bn, width 0.25, {sum(value.numel() for value in model.parameters()):,} weights, 128 images of 16x16"
    write_json(OUT, {name: measured(model, batch, rounds), "environment": environment()})
    print(OUT.read_text())


if __name__ == "__main__":
    main()

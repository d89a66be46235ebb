"""Price of a teacher: a distilled training step over a plain one; write results/distil.json.

Run it with ``python benchmarks/distil.py``. One thread, CPU time of the process. A round trains the same student from
the same weights in each way in turn, in the other order every second round; the first steps of each training are left
out. Ratios are over the plain training in the same round: median and quartiles over rounds. ``expected, live`` is one
plus the teacher's share of FLOPs, with a step of the student as three of its forward passes. What is paid once (the
copy of the teacher, or the cached logits of all images) is not part of a step.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import closerlook as cl
from closerlook import models
from closerlook.batches import without_extra
from closerlook.files import write_json
from closerlook.runs.environment import environment
from closerlook.training.interventions import Intervention
from closerlook.training.loop import Tick

OUT = Path(__file__).with_name("results") / "distil.json"
UNTIMED, TIMED = 3, 10
SHAPE, BATCH = (1, 16, 16), 100


def network(width: float) -> nn.Module:
    """A VGG-11 with batch norm, as the studies have it."""
    return models.build("vgg11_bn", width=width, in_channels=1, image_size=16, head="linear", init="he", seed=0)


def seconds_per_step(student: nn.Module, batch: Sequence[Tensor], change: Sequence[Intervention]) -> float:
    """CPU seconds of a training step."""
    stamps: dict[int, float] = {}

    def stamp(tick: Tick) -> None:
        stamps[tick.step] = time.process_time()

    cl.train(
        student, [tuple(batch)] * (UNTIMED + TIMED), epochs=1, lr=0.01, momentum=0.9, weight_decay=5e-4,
        interventions=change, observers=[stamp], batch_fn=without_extra(),
    )  # fmt: skip
    return (stamps[UNTIMED + TIMED] - stamps[UNTIMED]) / TIMED


def measured(student: nn.Module, teacher: nn.Module, rounds: int) -> dict[str, Any]:
    """Milliseconds of a plain step, and the ratios of the others to it."""
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(BATCH, *SHAPE, generator=source), torch.randint(0, 10, (BATCH,), generator=source)
    middle = "features.relu4"
    arms: Mapping[str, tuple[Sequence[Tensor], Sequence[Intervention]]] = {
        "plain": ((x, y), ()), "live": ((x, y), (cl.distil(teacher),)),
        "cached": ((x, y, cl.teacher_logits(teacher, [(x, y)])), (cl.distil(None),)),
        "match_features, one layer": ((x, y), (cl.match_features(teacher, {middle: middle}, weight=1.0),)),
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        names = list(arms) if number % 2 else list(reversed(arms))
        times = {name: seconds_per_step(student, *arms[name]) for name in names}
        if number:  # the first round warms up
            for name, value in times.items():
                found[name].append(1000 * value if name == "plain" else value / times["plain"])
    told = {"plain step, ms" if name == "plain" else name: spread(values) for name, values in found.items()}
    return {**told, "expected, live": round(1 + flops(teacher) / (3 * flops(student)), 3)}


def flops(model: nn.Module) -> int:
    """FLOPs of a forward pass of one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *SHAPE))
    return int(counter.get_total_flops())


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 4), "quartiles": [round(low, 4), round(high, 4)], "rounds": len(values)}


def main() -> None:
    """Measure and write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    rounds = options.parse_args().rounds
    torch.set_num_threads(1)
    pairs = {"teacher of the student's size": 0.125, "teacher of twice the width": 0.25}
    found = {name: measured(network(0.125), network(width), rounds) for name, width in pairs.items()}
    setting = f"student vgg11_bn of width 0.125, {BATCH} images of 16x16"
    write_json(OUT, {setting: found, "environment": environment()})
    print(OUT.read_text())


if __name__ == "__main__":
    main()

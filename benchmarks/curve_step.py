"""Price of a step of curve training over a plain training step: CPU time, peak memory; write results/curve_step.json.

Run it with ``python benchmarks/curve_step.py``. One thread, random images.

*Time.* Every round gives each subject a turn of two steps and times the second, CPU time of the process, in an order
that rotates; a ratio is to the plain step of the same round. All steps go through closerlook's own loop (seeds, rates,
checks), except *bare*: the loop that a PyTorch user writes (torch.optim.SGD, channels_last, gradients set to None).

*Memory.* Every subject in a fresh process that takes four steps; the peak of resident memory during the last two. The
ends of curves are read from files. In units of D floats (one vector of weights) over the plain step; a curve of K
points should need 2K - 3 of them: K points, K - 2 momenta, w(t) and one gradient, against weights, momentum, gradient.
"""

import argparse
import contextlib
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from closerlook import models
from closerlook.batches import Feed, autocast_dtype
from closerlook.files import write_json, write_tensors
from closerlook.landscape.connect import CurveTask, equally_spaced
from closerlook.runs.environment import environment
from closerlook.training.flat import FlatOptimizer
from closerlook.training.loop import Stepper, Tick, optimise
from closerlook.training.network import NetworkTask
from closerlook.training.optimizers import optimizer_factory
from closerlook.training.session import Task
from closerlook.views import borrowed
from closerlook.weights import WeightSpace

OUT = Path(__file__).with_name("results") / "curve_step.json"
TARGET_RATIO, TARGET_SHARE = 1.05, 0.03
RATES: Mapping[str, Any] = {"lr": 1e-3, "momentum": 0.9}
DECAY = 5e-4
CURVES: Mapping[str, tuple[Any, int]] = {
    "polychain, 3 points": ("polychain", 1), "bezier, 3 points": ("bezier", 1),
    "polychain, 5 points": ("polychain", 3), "bezier, 5 points": ("bezier", 3),
}  # fmt: skip
# Batch and rounds; VGG-16 with the paper's head of two layers of 4096 units.
NETWORKS = {"vgg16": (128, 11), "resnet110": (16, 21)}


class Bare:
    """The loop that a PyTorch user writes."""

    def __init__(self, model: nn.Module, precision: str) -> None:
        self.model = model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(model.parameters(), weight_decay=DECAY, **RATES)
        self.dtype = autocast_dtype(precision)

    def step(self, batch: Any) -> None:
        """One step on a batch."""
        self.optimizer.zero_grad()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype is not None):
            loss = functional.cross_entropy(self.model(batch[0]), batch[1])
        loss.backward()
        self.optimizer.step()
        loss.item()


def through_the_loop(task: Task, loader: list[Any], steps: int, first: int = 0) -> None:
    """So many steps of closerlook's loop."""
    stepper: Stepper = task.optimizer
    optimise(task.closure, stepper, lambda step: 1.0, loader, Tick(first, first + steps, 1))


def network_task(model: nn.Module, precision: str) -> NetworkTask:
    feed = Feed(torch.device("cpu"), autocast=autocast_dtype(precision))
    make = optimizer_factory("sgd", weight_decay=DECAY, **RATES)
    return NetworkTask(copy.deepcopy(model), feed, make, True, None, torch.channels_last)


@contextlib.contextmanager
def curve_task(model: nn.Module, ends: Sequence[Any], curve: str, precision: str) -> Iterator[CurveTask]:
    """As `closerlook.connect` makes it."""
    kind, bends = CURVES[curve]
    feed = Feed(torch.device("cpu"), autocast=autocast_dtype(precision))
    space = WeightSpace(model)
    with borrowed(model, space, gradients=True, memory_format=torch.channels_last) as views:
        encoded = [views.encode(space.point(end).vector) for end in ends]
        task = CurveTask(model.train(), feed, views, kind, encoded, equally_spaced(encoded, bends), DECAY)
        task.optimizer = FlatOptimizer(optimizer_factory("sgd", **RATES), task.bends, task.gradient)
        yield task


def random_batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.randn(size, 3, 32, 32, generator=source), torch.randint(0, 10, (size,), generator=source)


def quartiles(values: Sequence[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": round(middle, 4), "quartiles": [round(low, 4), round(high, 4)], "n": len(values)}


def times(network: str, precision: str) -> dict[str, Any]:
    """Milliseconds and ratios of every subject."""
    batch, rounds = NETWORKS[network]
    loader = [random_batch(batch)]
    model, *ends = (models.build(network, seed=seed) for seed in range(3))
    bare = Bare(copy.deepcopy(model), precision)
    with contextlib.ExitStack() as stack:
        tasks: dict[str, Task] = {"plain": network_task(model, precision)}
        for curve in CURVES:
            tasks[curve] = stack.enter_context(curve_task(copy.deepcopy(model), ends, curve, precision))
        subjects: dict[str, Callable[[int], None]] = {
            name: lambda number, task=task: through_the_loop(task, loader, 1, number)  # type: ignore[misc]
            for name, task in tasks.items()
        }
        subjects["bare"] = lambda number: bare.step(loader[0])
        spent: dict[str, list[float]] = {name: [] for name in subjects}
        for number in range(rounds + 1):
            names = list(subjects)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                subjects[name](2 * number)
                started = time.process_time()
                subjects[name](2 * number + 1)
                spent[name].append(1e3 * (time.process_time() - started))
    return {name: _told(values[1:], spent["plain"][1:], name) for name, values in spent.items()}  # the first warms up


def _told(values: list[float], plain: list[float], name: str) -> dict[str, Any]:
    told: dict[str, Any] = {"ms": quartiles(values)}
    if name != "plain":
        told["over plain"] = quartiles([one / other for one, other in zip(values, plain, strict=True)])
    if name in CURVES:
        told["within target"] = told["over plain"]["median"] <= TARGET_RATIO
    return told


def pass_over_memory(size: int) -> dict[str, Any]:
    """Milliseconds of ``x += a y`` on vectors of so many floats: the unit of what a curve costs more."""
    x, y = torch.rand(size), torch.rand(size)
    spent = []
    for _ in range(12):
        started = time.process_time()
        x.add_(y, alpha=1e-3)
        spent.append(1e3 * (time.process_time() - started))
    return quartiles(spent[1:])


# Memory


def peak(network: str, precision: str, subject: str, ends: Sequence[Path]) -> int:
    """Bytes at the peak of two steps, after two others; for a process of its own."""
    batch, _ = NETWORKS[network]
    loader = [random_batch(batch)]
    model = models.build(network)
    with contextlib.ExitStack() as stack:
        task: Task
        if subject == "plain":
            task = network_task(model, precision)
        else:
            task = stack.enter_context(curve_task(model, ends, subject, precision))
        through_the_loop(task, loader, 2)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        through_the_loop(task, loader, 2, 2)
        return _resident_peak()


def _resident_peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    raise SystemExit("this system does not tell the peak of resident memory")


def memory(network: str, precision: str, repeats: int) -> dict[str, Any]:
    """Peaks of every subject, over the plain one's in units of D floats."""
    with tempfile.TemporaryDirectory() as folder:
        ends = [Path(folder) / f"{seed}.safetensors" for seed in (1, 2)]
        for seed, path in enumerate(ends, 1):
            write_tensors(path, models.build(network, seed=seed).state_dict())
        peaks: dict[str, list[int]] = {subject: [] for subject in ("plain", *CURVES)}
        for subject, found in peaks.items():
            for _ in range(repeats):
                words = ["--peak", network, precision, subject, *map(str, ends)]
                done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
                found.append(json.loads(done.stdout))
    vector = 4 * WeightSpace(models.build(network)).size
    plain = statistics.median(peaks["plain"])
    told: dict[str, Any] = {"plain": {"bytes": quartiles(peaks["plain"])}, "vector": vector}
    for curve, (_, bends) in CURVES.items():
        more, target = statistics.median(peaks[curve]) - plain, (2 * (bends + 2) - 3) * vector
        told[curve] = {
            "bytes": quartiles(peaks[curve]), "vectors over plain": round(more / vector, 3),
            "target in vectors": 2 * (bends + 2) - 3, "over plain": round(more / plain, 4),
            "within target": more <= target + TARGET_SHARE * plain,
        }  # fmt: skip
    return told


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=3, help="processes per measurement of memory")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    if asked.peak:
        network, precision, subject, *ends = asked.peak
        print(json.dumps(peak(network, precision, subject, [Path(end) for end in ends])))
        return 0
    found: dict[str, Any] = {}
    for network in asked.networks:
        size = WeightSpace(models.build(network)).size
        found[network] = {"D": size, "batch": NETWORKS[network][0], "ms of x += a y": pass_over_memory(size)}
        for precision in asked.precisions:
            found[network][precision] = {
                "time": times(network, precision), "memory": memory(network, precision, asked.repeats)
            }  # fmt: skip
            _show(network, precision, found[network][precision])
    target = {"time over plain": TARGET_RATIO, "memory": "(2K - 3) D floats + 3 % of the plain peak"}
    settings = {"optimizer": "sgd", **RATES, "weight_decay": DECAY, "layout": "channels_last", "target": target}
    write_json(asked.out, {"networks": found, "settings": settings, "environment": environment()})
    return 0


def _show(network: str, precision: str, found: Mapping[str, Any]) -> None:
    for name, told in found["time"].items():
        ratio = told.get("over plain", {"median": 1.0, "quartiles": [1.0, 1.0]})
        line = f"{network} {precision} {name:20} {told['ms']['median']:9.1f} ms"
        line += f"  {ratio['median']:.3f} {ratio['quartiles']}"
        more = found["memory"].get(name, {})
        if "vectors over plain" in more:
            line += f"  {more['vectors over plain']:.2f} D of {more['target in vectors']}"
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

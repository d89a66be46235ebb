"""Price of a trajectory of 50 checkpoints of 15 million weights; write results/trajectory.json.

Run it with ``python benchmarks/trajectory.py`` (a minute and a half of CPU, 5 GiB of memory). One thread. The
checkpoints are a random walk in float32, whose first component explains 6 / pi^2 of the variance in the limit. CPU
seconds are also given in units of one float64 distance between two checkpoints; peak memory is that above the
checkpoints, in vectors of float64.
"""

import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import closerlook as cl
from closerlook.files import write_json
from closerlook.runs.environment import environment, one_thread
from closerlook.weights import distance

OUT = Path(__file__).with_name("results") / "trajectory.json"
SIZE, COUNT = 15_000_000, 50


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def walk(model: nn.Module) -> list[cl.Point]:
    source = torch.Generator().manual_seed(0)
    vectors = [cl.WeightSpace(model).point(model).vector]
    for _ in range(COUNT - 1):
        vectors.append(vectors[-1] + 1e-3 * torch.randn(SIZE, generator=source))
    return [cl.Point(vector) for vector in vectors]


def main() -> None:
    model = nn.Linear(SIZE // 1000 - 1, 1000)
    points, found = walk(model), list[cl.Trajectory]()
    one = [seconds(lambda: distance(points[0].vector, points[1].vector)) for _ in range(5)]
    before = peak()
    cpu = seconds(lambda: found.append(cl.trajectory(model, points)))
    result = {
        "weights": SIZE, "checkpoints": COUNT, "cpu_s": round(cpu, 1), "in distances": round(cpu / sorted(one)[2]),
        "peak above the checkpoints, in vectors of float64": round((peak() - before) / 8 / SIZE, 1),
        "explained": found[0].explained[:3].round(4).tolist(),
    }  # fmt: skip
    write_json(OUT, {**result, "environment": environment()})
    print(result)


if __name__ == "__main__":
    with one_thread():
        main()

"""Price of a point of a curve, per image: the reader against plain loops; write results/profile_point.json.

Run it with ``python benchmarks/profile_point.py``. One thread, interleaved rounds, CPU time of the process; each ratio
is to the other loop of the same round, and medians and quartiles are over rounds. A point is: setting the weights,
one pass for the batch-norm statistics, one pass for the losses, both over the same number of images.

- (a) *reference*: what the published tools do: a plain NCHW loop, autograd on, weights set by copies, statistics by a
  pass with the norm layers in train mode; fp32.
- (b) *inference*: the same work in channels_last under inference_mode, written out by hand.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import closerlook as cl
from closerlook import models
from closerlook.evaluation import batch_norms
from closerlook.files import write_json
from closerlook.landscape.reader import reading
from closerlook.landscape.subspace import combine
from closerlook.runs.environment import environment
from closerlook.views import borrowed

OUT = Path(__file__).with_name("results") / "profile_point.json"
BATCH = 125


def plain_point(model: nn.Module, weights: list[Tensor], batches: list[Any], layout: torch.memory_format) -> float:
    """One point of a curve by a loop as anyone would write it."""
    with torch.no_grad():
        for value, new in zip(model.parameters(), weights, strict=True):
            value.copy_(new)
    norms = batch_norms(model)
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None
        norm.reset_running_stats()
    for x, _ in batches:
        model(x.contiguous(memory_format=layout))
    model.eval()
    total, count = 0.0, 0
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x.contiguous(memory_format=layout)), y, reduction="sum")
        total, count = total + loss.item(), count + len(y)
    return total / count


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of the process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 4), "quartiles": [round(low, 4), round(high, 4)], "n": len(values)}


def points(images: int, rounds: int) -> dict[str, Any]:
    """Milliseconds per image of each way, and the ratios of the reader to both loops."""
    own, a, b = (models.build("vgg16_bn", head="linear", init="he", seed=seed) for seed in range(3))
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(images, 3, 32, 32, generator=source), torch.randint(0, 10, (images,), generator=source)
    batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    nchw = copy.deepcopy(own).to(memory_format=torch.contiguous_format)
    last = copy.deepcopy(own)
    middle = [(p + q).detach() / 2 for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    contiguous = [value.contiguous() for value in middle]

    def reference() -> None:
        plain_point(nchw, contiguous, batches, torch.contiguous_format)

    def inference() -> None:
        with torch.inference_mode():
            plain_point(last, middle, batches, torch.channels_last)

    settings: dict[str, Any] = {
        "batch_stats": "recompute", "stats_loader": batches, "params": "*", "batch_fn": None, "device": None,
    }  # fmt: skip
    kinds = {
        "fp32": (None, torch.channels_last), "bf16": (torch.bfloat16, torch.channels_last),
        "fp32 contiguous": (None, torch.contiguous_format),
    }  # fmt: skip
    path, losses = cl.line(a, b), {}
    coefficients = path.coefficients([0.5])[0]
    with ExitStack() as open_readers:
        ways: dict[str, Callable[[], None]] = {"reference": reference, "inference": inference}
        for kind, (autocast, layout) in kinds.items():
            own_copy = copy.deepcopy(own)
            opened = reading(own_copy, path, {"train": batches}, autocast=autocast, memory_format=layout, **settings)
            reader = open_readers.enter_context(opened)

            def point(reader: Any = reader, kind: str = kind) -> None:
                reader.place(coefficients)
                losses[kind] = float(reader.values()["train_loss"].mean())

            ways[kind] = point
        for work in ways.values():
            work()
        times: dict[str, list[float]] = {name: [] for name in ways}
        for round_ in range(rounds):
            for name in np.random.default_rng(round_).permutation(list(ways)):
                times[name].append(seconds(ways[name]))
            print({name: round(each[-1], 2) for name, each in times.items()}, file=sys.stderr)
    targets = {
        "fp32/reference": 0.75, "fp32 contiguous/reference": 0.75, "bf16/reference": 0.5, "fp32/inference": 1.05,
    }  # fmt: skip
    ratios = {
        pair: {**spread([one / other for one, other in zip(*(times[name] for name in pair.split("/")), strict=True)]),
               "target": target}
        for pair, target in targets.items()
    }  # fmt: skip
    milliseconds = {name: spread([1000 * value / images for value in each]) for name, each in times.items()}
    return {
        "network": "vgg16_bn, linear head", "images": images, "batch": BATCH, "ms_per_image": milliseconds,
        "ratios": ratios, "loss": losses, "bf16_error": abs(losses["bf16"] - losses["fp32"]),
    }  # fmt: skip


def weights(rounds: int) -> dict[str, Any]:
    """Milliseconds to set the 15 million weights of a grid cell, by views and by copies."""
    model = models.build("vgg16_bn", head="linear", init="he")
    space = cl.WeightSpace(model)
    a, b, c = (space.point(torch.randn(space.size, generator=torch.Generator().manual_seed(seed))) for seed in range(3))
    plane = cl.plane(a, b, c)
    times: dict[str, list[float]] = {"views": [], "copies": [], "one plain copy": []}
    with borrowed(copy.deepcopy(model), space, memory_format=torch.channels_last) as views:
        vectors = [views.encode(point.vector) for point in plane.points]
        for number in range(rounds):
            row = plane.coefficients([[0.1 * number, 0.2]])[0]
            with torch.no_grad():
                times["views"].append(seconds(lambda row=row: combine(row, vectors, out=views.buffer)))
                times["one plain copy"].append(seconds(lambda: views.buffer.copy_(vectors[0])))
            times["copies"].append(
                seconds(lambda row=row: model.load_state_dict(
                    space.state_dict(cl.Point(combine(row, [point.vector for point in plane.points]))), strict=False))
            )  # fmt: skip
    return {
        "weights": space.size, "target_ms": 8.0,
        **{name: spread([1000 * value for value in each]) for name, each in times.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    record = {"point": points(asked.images, asked.rounds), "cell": weights(31), "environment": environment()}
    write_json(asked.out, record)


if __name__ == "__main__":
    main()

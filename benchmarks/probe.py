"""Price of the probe that refuses what does not repeat, in passes over a split; write results/probe.json.

Run it with ``python benchmarks/probe.py``. One thread, interleaved rounds, CPU time of the process; each ratio is the
probe's time over that of reading one point (losses of all images) in the same round, medians and quartiles over rounds.
A profile of 25 points with batch-norm statistics takes about 50 such passes and two probes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from closerlook import models
from closerlook.batches import Feed
from closerlook.evaluation import check_repeatable, read
from closerlook.files import write_json
from closerlook.runs.environment import environment

OUT = Path(__file__).with_name("results") / "probe.json"
FEED = Feed(torch.device("cpu"))


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of the process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def price(model: nn.Module, loader: DataLoader, rounds: int) -> dict[str, Any]:
    """The probe's share of one pass."""
    model.eval()
    ratios = []
    for number in range(rounds + 1):
        probe = seconds(lambda: check_repeatable(model, loader, FEED, "test"))
        whole = seconds(lambda: read(model, loader, FEED))
        if number:  # the first round warms up
            ratios.append(probe / whole)
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"median": round(median, 3), "quartiles": [round(low, 3), round(high, 3)], "rounds": rounds}


def main() -> None:
    """Measure and write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=9)
    rounds = options.parse_args().rounds
    torch.set_num_threads(1)
    source = torch.Generator().manual_seed(0)
    found = {}
    for name, size, images, model in (
        (
            "vgg11_bn, 2,000 images of 32x32, batches of 125",
            32,
            2000,
            models.build("vgg11_bn", head="linear", init="he"),
        ),
        ("mlp, 10,000 images of 8x8, batches of 500", 8, 10_000, models.build("mlp", in_features=192)),
    ):
        x, y = torch.randn(images, 3, size, size, generator=source), torch.randint(0, 10, (images,), generator=source)
        loader = DataLoader(TensorDataset(x, y), batch_size=125 if size == 32 else 500)
        found[name] = price(model, loader, rounds)
    write_json(OUT, {"probe_over_one_pass": found, "environment": environment()})
    print(OUT.read_text())


if __name__ == "__main__":
    main()

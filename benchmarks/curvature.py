"""Error and price of curvature on VGG-11-BN at 1/4 width, images of 16x16; write results/curvature.json.

Run it with ``python benchmarks/curvature.py`` (about five minutes of CPU; ``--part`` replaces one part of the result).
One thread; weights after an epoch of training; batches of 500, normalised by their own statistics.

*Error.* On 2,000 images: sharpness at two tolerances from two starts, whole and per block, against one Lanczos run to a
residual of 1e-3 of the value; *long run* takes 25 products from another start.

*Price.* CPU time of the process in rounds that give every subject a turn; each ratio is to the forward and backward
pass over the same images in its round, in the layout in which the training loop computes (channels_last, the faster one
for a single pass). Median and range over rounds. `counted` is what a result calls its passes. Every layer by itself is
timed once. The blocks are the convolutions and the head.

With curvlinops importable its Hessian-vector product is timed beside ours and compared, both with running statistics:
it differentiates by `torch.func`, which refuses a batch norm in training mode (it writes its running statistics).
"""

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import closerlook as cl
from closerlook import data, models
from closerlook.batches import Feed
from closerlook.curvature import HessianOperator, reading
from closerlook.errors import DataMissingError
from closerlook.files import write_json
from closerlook.layout import lay_out
from closerlook.runs.environment import environment, one_thread

OUT = Path(__file__).with_name("results") / "curvature.json"
IMAGES, BATCH, SEEDS = 2000, 500, range(1, 3)
TARGET = 0.02
BLOCKS = {"convolutions": "features.*", "head": "head.*"}
FEED = Feed(torch.device("cpu"))
Batches = list[tuple[Tensor, Tensor]]


def network() -> nn.Module:
    return models.build("vgg11_bn", width=0.25, head="paper", image_size=16, in_channels=1, init="he", seed=0)


def images() -> tuple[str, Batches]:
    """The name of the data set and its batches."""
    try:
        source = data.load("fashion", resolution=16)
    except DataMissingError:
        source = data.load("synthetic", resolution=16)
    x, y = data.split(source, n_train=IMAGES, n_validation=0, n_statistics=0, seed=0).train
    return source.name, list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def trained(batches: Batches, epochs: int) -> nn.Module:
    """After so many epochs of batches of 50."""
    small = [(x[i : i + 50], y[i : i + 50]) for x, y in batches for i in range(0, len(x), 50)]
    made = cl.train(network(), small, lr=0.02, momentum=0.9, epochs=epochs, seed=0)
    return cl.loaded(network(), made.point)


def spread(values: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 3), "range": [round(min(values), 3), round(max(values), 3)]}


def errors(model: nn.Module, batches: Batches) -> dict[str, Any]:
    """Sharpness at several tolerances against a long run, whole and per block."""
    long = cl.sharpness(model, batches, tolerance=1e-3, max_products=100, per_block=BLOCKS)
    told: dict[str, Any] = {
        "long run": {
            "value": long.value, "residual": float(long.residuals[0]), "products": long.products,
            "converged": long.converged, "shares": dict(long.shares), "loss": long.loss,
        }
    }  # fmt: skip
    for tolerance in (0.1, 0.01):
        found = [cl.sharpness(model, batches, tolerance=tolerance, seed=seed) for seed in SEEDS]
        worst = max(abs(one.value / long.value - 1) for one in found)
        told[f"tolerance {tolerance:g}"] = {
            "largest relative error": worst, "within target": worst <= TARGET,
            "products": [one.products for one in found], "counted passes": [one.passes for one in found],
            "overlap of top vectors": min(abs(float(one.vectors[0] @ long.vectors[0])) for one in found),
        }  # fmt: skip
    blocks = cl.sharpness(model, batches, per_block=BLOCKS, seed=1).blocks
    told["blocks at 0.01"] = {
        name: {**vars(block), "relative error": block.value / long.blocks[name].value - 1}
        for name, block in blocks.items()
    }
    return told


def long_run(model: nn.Module, batches: Batches) -> dict[str, Any]:
    """The value after 25 products, whatever the residual."""
    found = cl.sharpness(model, batches, top=3, tolerance=1e-12, max_products=25, seed=9)
    return {
        "values": found.values.tolist(), "residuals": found.residuals.tolist(), "products": found.products,
        "loss": found.loss,
    }  # fmt: skip


def pass_over(model: nn.Module, batches: Batches, backward: bool) -> Callable[[], Any]:
    """A pass as the training loop makes it."""
    lay_out(model, torch.channels_last)
    parameters = list(model.parameters())

    def run() -> None:
        with reading(model), torch.set_grad_enabled(backward):
            for x, y in batches:
                loss = nn.functional.cross_entropy(model(x), y)
                if backward:
                    torch.autograd.grad(loss, parameters)

    return run


def product_over(model: nn.Module, batches: Batches, batch_norm: Any = "batch") -> Callable[[], Tensor]:
    """One product, all batches included."""
    space = cl.WeightSpace(model)
    vector = torch.randn(space.size, generator=torch.Generator().manual_seed(0))

    def run() -> Tensor:
        with reading(model, batch_norm):
            return HessianOperator(model, batches, FEED, space).product(vector)

    return run


def other_product(model: nn.Module, batches: Batches) -> Callable[[], Any]:
    """The same product by curvlinops, its operator made outside of the time that counts."""
    from curvlinops import HessianLinearOperator

    parameters = list(model.parameters())
    n = sum(len(y) for _, y in batches)
    with reading(model, "running"):
        operator = HessianLinearOperator(
            model, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False, num_data=n
        )
    vector = torch.randn(sum(p.numel() for p in parameters), generator=torch.Generator().manual_seed(0))

    def run() -> Tensor:
        with reading(model, "running"):
            return operator @ vector

    return run


def prices(model: nn.Module, batches: Batches, rounds: int) -> dict[str, Any]:
    """CPU time of every subject in forward and backward passes over its images."""
    one = batches[:1]
    copies = [cl.loaded(model, cl.WeightSpace(model).point(model)) for _ in range(3)]
    fast = [(x.to(memory_format=torch.channels_last), y) for x, y in batches]
    subjects: dict[str, Callable[[], Any]] = {
        "forward and backward": pass_over(copies[0], fast[:1], True),
        "forward": pass_over(copies[1], fast[:1], False),
        "product": product_over(model, one),
        "sharpness": lambda: cl.sharpness(model, one),
        "sharpness at 0.1": lambda: cl.sharpness(model, one, tolerance=0.1),
        "sharpness per block": lambda: cl.sharpness(model, one, per_block=BLOCKS),
        "critical_lr": lambda: cl.critical_lr(model, one),
        "critical_lr per block": lambda: cl.critical_lr(model, one, per_block=BLOCKS),
        "forward and backward, 4 batches": pass_over(copies[2], fast, True),
        "product, 4 batches": product_over(model, batches),
    }
    if importlib.util.find_spec("curvlinops"):
        subjects["product, running statistics"] = product_over(model, one, "running")
        subjects["the same by curvlinops"] = other_product(model, one)
    subjects["forward and backward"]()  # warms up
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    counted: dict[str, Any] = {}
    for number in range(rounds):
        names = list(subjects)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.process_time()
            found = subjects[name]()
            spent[name].append(time.process_time() - started)
            counted[name] = getattr(found, "passes", None)
    told = {}
    for name, values in spent.items():
        passes = [own / unit for own, unit in zip(values, spent[_unit(name)], strict=True)]
        told[name] = {"seconds": spread(values), "passes": spread(passes), "counted": counted[name], "rounds": rounds}
    return told


def _unit(name: str) -> str:
    return "forward and backward, 4 batches" if name.endswith("4 batches") else "forward and backward"


def every_layer(model: nn.Module, batches: Batches) -> dict[str, Any]:
    """Sharpness of every layer on one batch, timed once, in passes over that batch."""
    fast = [(x.to(memory_format=torch.channels_last), y) for x, y in batches[:1]]
    one = pass_over(cl.loaded(model, cl.WeightSpace(model).point(model)), fast, True)
    seconds = []
    for run in (one, one, lambda: cl.sharpness(model, batches[:1], per_block=True)):
        started = time.process_time()
        found = run()
        seconds.append(time.process_time() - started)
    values = {name: {**vars(block), "share": found.shares[name]} for name, block in found.blocks.items()}
    return {
        "seconds": seconds[2], "passes": seconds[2] / seconds[1], "counted": found.passes, "whole": found.value,
        "layers": values,
    }  # fmt: skip


def agreement(model: nn.Module, batches: Batches) -> dict[str, float] | None:
    """Our product against that of curvlinops, with running statistics."""
    if not importlib.util.find_spec("curvlinops"):
        return None
    theirs, ours = other_product(model, batches)(), product_over(model, batches, "running")()
    return {"relative difference": float((ours - theirs).norm() / ours.norm())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["error", "long run", "price", "every layer"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    with one_thread():
        name, batches = images()
        model = trained(batches, 1)
        parts: dict[str, Callable[[], Any]] = {
            "error": lambda: errors(model, batches),
            "long run": lambda: long_run(model, batches),
            "price": lambda: prices(model, batches, asked.rounds),
            "every layer": lambda: every_layer(model, batches),
        }
        for part, run in parts.items():
            if asked.part in (None, part):
                found = run()
                stored = json.loads(asked.out.read_text()) if asked.out.exists() else {}
                write_json(asked.out, {**stored, part: found, "environment": environment(), "settings": settings(name)})


def settings(name: str) -> dict[str, Any]:
    size = cl.WeightSpace(network()).size
    return {"data": name, "images": IMAGES, "batch": BATCH, "D": size, "target": TARGET}


if __name__ == "__main__":
    main()

"""Price of similarity in units of the float64 products it cannot do without; write results/similarity.json.

Run it with ``python benchmarks/similarity.py`` (about five minutes). One thread, CPU time of the process, interleaved
rounds: the ratio of each round is to the floor of the same round, and median and range are over rounds. Examples come
as float32 batches of 500, and the time is that of the whole way from batches to values. The floor of a pair is three
full products of float64 matrices in memory (x'x, y'y, x'y), that of the grid 64 cross and 16 own products. Simulated
chance levels run only when they are read, so their time is listed apart.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from closerlook.files import write_json
from closerlook.runs.environment import environment, one_thread
from closerlook.similarity import (
    GridMoments,
    Moments,
    SpectralMoments,
    cca,
    cka,
    procrustes,
    pwcca,
    spectral_cca,
    svcca,
)

OUT = Path(__file__).with_name("results") / "similarity.json"
EXAMPLES, BATCH = 10_000, 500
TARGETS = {
    "512": {"cca": 1.3, "r2 alone": 1.15, "debiased cka alone": 1.15, "all measures": 2.0}, "2048": {"cca": 1.75},
    "grid": {"cca": 1.3}, "spectral": {"spectral cca": 2.5 / 0.33}, "spectral_extra_mb": 200,
}  # fmt: skip
Work = Mapping[str, Callable[[], Any]]


def timed(work: Work, rounds: int, floor: str = "floor") -> dict[str, Any]:
    """Median CPU seconds of each, and the ratio to the floor with its range over rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, run in work.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    made = {}
    for name, values in seconds.items():
        # The first round warms up.
        ratios = [value / base for value, base in zip(values[1:], seconds[floor][1:], strict=True)]
        made[name] = {
            "seconds": round(statistics.median(values[1:]), 4), "ratio": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)], "rounds": rounds,
        }  # fmt: skip
    return made


def related(n: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Two float32 representations that share half of their variance."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.empty(n, *shape), torch.empty(n, *shape)
    x.normal_(generator=generator)
    y.normal_(generator=generator).add_(x)
    return x, y


def summed(x: Tensor, y: Tensor) -> Moments:
    """The moments of all batches."""
    made = Moments()
    for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True):
        made.update(a, b)
    return made


def products(x: Tensor, y: Tensor) -> Callable[[], Any]:
    """The three products, as plain as they are."""
    a, b = x.double(), y.double()
    return lambda: (a.T @ a, b.T @ b, a.T @ b)


def pair(width: int, rounds: int) -> dict[str, Any]:
    """Single measures and all together for one pair of layers."""
    x, y = related(EXAMPLES, width)
    insist = width > EXAMPLES // 5

    def everything() -> Any:
        m = summed(x, y)
        whitened = [measure(m, insist=insist).value for measure in (svcca, pwcca, cca)]
        return whitened, cka(m).value, cka(m, debiased=False).value, procrustes(m).value

    done = summed(x, y)
    return timed({
        "floor": products(x, y),
        "sums alone": lambda: summed(x, y).pair(),
        "cca": lambda: cca(summed(x, y), insist=insist),
        "r2 alone": lambda: cca(summed(x, y), summary="r2", coefficients=False, insist=insist),
        "debiased cka alone": lambda: cka(summed(x, y)),
        "procrustes alone": lambda: procrustes(summed(x, y)),
        "all measures": everything,
        "chance of mean rho": lambda: cca(done, insist=insist, seed=time.process_time_ns()).chance,
    }, rounds)  # fmt: skip


def grid(rounds: int) -> dict[str, Any]:
    """Eight layers of one network against eight of another, 256 units each."""
    x, y = related(EXAMPLES, 8 * 256)
    names = [[f"{side}{i}" for i in range(8)] for side in "ab"]
    pairs = [(a, b) for a in names[0] for b in names[1]]

    def read(values: Callable[[Any], float]) -> list[float]:
        made = GridMoments(pairs)
        for rows in zip(x.split(BATCH), y.split(BATCH), strict=True):
            made.update({
                name: part for side, each in zip(names, rows, strict=True)
                for name, part in zip(side, each.split(256, 1), strict=True)
            })  # fmt: skip
        return [values(made.pair(a, b)) for a, b in pairs]

    layers = [each.double().contiguous() for rows in (x, y) for each in rows.split(256, 1)]

    def floor() -> None:
        for layer in layers:
            layer.T @ layer
        for a in layers[:8]:
            for b in layers[8:]:
                a.T @ b

    return timed({
        "floor": floor, "cca": lambda: read(lambda m: cca(m).value),
        "debiased cka": lambda: read(lambda m: cka(m).value),
    }, rounds)  # fmt: skip


def spectral(rounds: int) -> dict[str, Any]:
    """64 channels, 16 x 16, 5000 images, in batches of 250."""
    x, y = related(5000, 64, 16, 16)
    wide = related(EXAMPLES, 512)
    return timed({"floor": products(*wide), "spectral cca": lambda: read_maps(x, y)}, rounds)


def read_maps(x: Tensor, y: Tensor) -> float:
    """From batches of maps to the value."""
    made = SpectralMoments()
    for a, b in zip(x.split(250), y.split(250), strict=True):
        made.update(a, b)
    return spectral_cca(made).value


def peak_mb() -> float:
    """Most memory that the process has held so far (Linux; getrusage would count that of the parent)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1e3


def spectral_memory(answer: Any) -> None:
    """Send the memory that the maps' moments and their decomposition take beside the maps."""
    with one_thread():
        x, y = related(5000, 64, 16, 16)
        read_maps(x[:500], y[:500, :1])  # what libraries take once
        before = peak_mb()
        read_maps(x, y)
        answer.send(round(peak_mb() - before, 1))


def million(answer: Any) -> None:
    """Send time and memory of a million examples of 512 units, and the error on the first 20,000 against QR."""
    with one_thread():
        generator = torch.Generator().manual_seed(0)
        mixing, made, first = torch.randn(512, 512, generator=generator), Moments(), []
        started, memory, subset = time.process_time(), [], 0.0
        for number in range(200):
            x = torch.randn(5000, 512, generator=generator)
            y = torch.randn(5000, 512, generator=generator).mul_(10).add_(x @ mixing)
            made.update(x, y)
            memory.append(peak_mb())
            if number < 4:
                first.append((x, y))
            if number == 3:
                rho = torch.from_numpy(cca(made).coefficients)
                subset = float((rho - by_qr(*(torch.cat(side) for side in zip(*first, strict=True)))).abs().max())
                first = []
        found = cca(made)
        answer.send({
            "examples": made.n, "seconds_with_making_them": round(time.process_time() - started, 1),
            "mb_from_batch_10_to_the_last": round(memory[-1] - memory[9], 1), "mean_rho": found.value,
            "condition": found.condition, "largest_error_on_20000_against_qr": subset,
        })  # fmt: skip


def by_qr(x: Tensor, y: Tensor) -> Tensor:
    """Canonical correlations of examples in memory."""
    bases = [torch.linalg.qr(side.double() - side.double().mean(0)).Q for side in (x, y)]
    return torch.linalg.svdvals(bases[0].T @ bases[1])


def alone(work: Callable[[Any], None]) -> Any:
    """What the work sends from a process of its own: peaks of memory are per process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs,))
    process.start()
    answer = ours.recv()
    process.join()
    return answer


def main() -> None:
    """Measure everything and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds at 512 units; a third of it for what is longer")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    few = max(3, asked.rounds // 3)
    with one_thread():
        record = {
            "512": pair(512, asked.rounds), "2048": pair(2048, few), "grid": grid(few), "spectral": spectral(few),
            "environment": environment(),
        }  # fmt: skip
    record |= {"spectral_extra_mb": alone(spectral_memory), "million": alone(million), "targets": TARGETS}
    write_json(asked.out, record)
    for part, targets in TARGETS.items():
        for name, target in targets.items() if isinstance(targets, dict) else ():
            found = record[part][name]
            print(f"{part} {name}: {found['ratio']} {found['range']} (target {target:.3g})")
    print(f"spectral: {record['spectral_extra_mb']} MB beside the maps; a million examples: {record['million']}")


if __name__ == "__main__":
    main()

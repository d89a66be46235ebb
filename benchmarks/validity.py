"""Which similarity moves when behaviour moves, and stays when it does not; write results/validity.json.

Small networks on scikit-learn's digits, seeds below 100. Behaviour of a layer is what a linear probe on it predicts for
images that neither the network nor the probe was trained on. Run it with ``python benchmarks/validity.py``.
"""

import argparse
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from scipy.stats import t as student
from torch import Tensor, nn

import closerlook as cl
from closerlook import data, models
from closerlook.activations import Activations
from closerlook.data import TensorBatches
from closerlook.errors import UsageError
from closerlook.files import write_json
from closerlook.models.initial import initialise
from closerlook.similarity import Moments, Pair, Similarity, cca, measure

OUT = Path(__file__).with_name("results") / "validity.json"
NAMES = ("cca", "cca:r2", "svcca", "svcca:10,r2", "pwcca", "cka", "cka:biased", "procrustes")
MEASURES: Mapping[str, Callable[[Pair], Similarity]] = {
    **{name: measure(name, insist=True) for name in NAMES},
    "cca over width": partial(cca, denominator="width_x", insist=True),
}
STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 400)
SHIFTS = (0, 1, 2, 5, 10, 100)  # in units of the root mean square distance from the mean
EPOCHS, BATCH, LR, MOMENTUM = 14, 50, 0.05, 0.9

SOURCE = data.load("digits")
TRAIN, TEST = (TensorBatches(SOURCE.prepare(x), y, 1500) for x, y in (
    (SOURCE.train_inputs, SOURCE.train_targets), (SOURCE.test_inputs, SOURCE.test_targets)))  # fmt: skip
Y_TRAIN, Y_TEST = SOURCE.train_targets, SOURCE.test_targets


def mlp(seed: int) -> nn.Module:
    """Five hidden layers of 64 units."""
    return models.build("mlp", seed=seed, in_features=64, hidden=(64,) * 5)


def cnn(seed: int) -> nn.Module:
    """Five convolutions; a layer's units are its channels averaged over space."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after) in enumerate(((1, 32), (32, 32), (32, 48), (48, 48), (48, 64)), 1):
            layers[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1, stride=2 if number == 3 else 1)
            layers[f"relu{number}"] = nn.ReLU()
        layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": nn.Linear(64, 10)}
        network = nn.Sequential(layers)
        initialise(network, "he")
        return network


NETWORKS: Mapping[str, Callable[[int], nn.Module]] = {"mlp": mlp, "cnn": cnn}


class Run:
    """One training: activations of its hidden layers on training and test images at every snapshot."""

    def __init__(self, network: Callable[[int], nn.Module], seed: int, order: int = 0) -> None:
        model = network(seed)
        batches = TensorBatches(TRAIN.inputs, Y_TRAIN, BATCH, shuffle=True, order_seed=1000 * order + seed)
        times = [f"{step}it" for step in STEPS]
        done = cl.train(model, batches, lr=LR, momentum=MOMENTUM, epochs=EPOCHS, snapshots=times, seed=seed)
        networks = {step: cl.loaded(model, done.snapshots[step]) for step in STEPS}
        self.train = {step: cl.activations(each, TRAIN, ["relu*"]) for step, each in networks.items()}
        self.test = {step: cl.activations(each, TEST, ["relu*"]) for step, each in networks.items()}
        self.accuracy = cl.evaluate(networks[STEPS[-1]], TEST).accuracy
        self.layers = list(self.train[0].rows)


def similarities(x: Tensor, y: Tensor, corrected: bool = False) -> dict[str, float]:
    """Every measure of two sets of rows; NaN where it cannot be had."""
    moments = Moments()
    moments.update(x, y)
    values = {}
    for name, function in MEASURES.items():
        try:
            found = function(moments.pair())
            values[name] = found.corrected if corrected else found.value
        except UsageError:
            values[name] = float("nan")
    return values


def probe(train: Tensor, test: Tensor) -> np.ndarray:
    """Classes that a ridge classifier predicts for the test rows."""
    x, z = train.double(), test.double()
    mean = x.mean(0)
    x, z = x - mean, z - mean
    gram = x.T @ x
    gram += 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    wanted = nn.functional.one_hot(Y_TRAIN, 10).double()
    weights = torch.linalg.solve(gram, x.T @ (wanted - wanted.mean(0)))
    return (z @ weights + wanted.mean(0)).argmax(1).numpy()


def accuracy(predicted: np.ndarray) -> float:
    """Share of right predictions."""
    return float((predicted == Y_TEST.numpy()).mean())


def deletion(run: Run, other: Run) -> Iterator[dict[str, Any]]:
    """Delete principal components (Ding et al. 2021): per layer, dissimilarity and loss of the probe's accuracy."""
    for layer in run.layers:
        x, z = (side[STEPS[-1]].rows[layer].double() for side in (run.train, run.test))
        mean = x.mean(0)
        vectors = torch.linalg.svd(x - mean, full_matrices=False)[2]
        full = accuracy(probe(x, z))
        rank = int(torch.linalg.matrix_rank(x - mean, rtol=1e-6))
        rows = []
        for kept in sorted({int(k) for k in np.geomspace(1, rank, 24)}, reverse=True):
            project = vectors[:kept].T @ vectors[:kept]
            short, short_z = (x - mean) @ project, (z - mean) @ project
            rows.append((kept, full - accuracy(probe(short, short_z)), similarities(x, short)))
        yield {"rows": rows, "seeds": similarities(x, other.train[STEPS[-1]].rows[layer]), "rank": rank}


def deletion_scores(cases: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Rank correlation of dissimilarity with lost accuracy; accuracy lost before two seeds look more alike."""
    scores: dict[str, dict[str, float]] = {}
    for name in MEASURES:
        correlations, unnoticed = [], []
        for case in cases:
            lost = np.array([row[1] for row in case["rows"]])
            apart = 1 - np.array([row[2][name] for row in case["rows"]])
            correlations.append(_rank_correlation(apart, lost))
            below = np.isfinite(apart) & (apart <= 1 - case["seeds"][name])
            unnoticed.append(float(lost[below].max()) if below.any() else 0.0)
        scores[name] = {"rank_correlation": float(np.mean(correlations)), "unnoticed_loss": float(np.mean(unnoticed))}
    return scores


def _rank_correlation(apart: np.ndarray, behaviour: np.ndarray) -> float:
    """Spearman's, where the measure is known; a measure that never moves sees nothing, which is 0."""
    known = np.isfinite(apart)
    if np.ptp(apart[known]) < 1e-9:
        return 0.0
    return float(spearmanr(apart[known], behaviour[known]).statistic)


def same_layer(a: Activations, b: Activations) -> dict[str, float]:
    """Share of layers of A whose most similar layer of B is the same (Kornblith et al. 2019)."""
    found = cl.compare(a, b, measures=NAMES, insist=True)
    own = np.arange(len(found.layers_a))
    return {name: float((found.tables["value"][name].argmax(1) == own).mean()) for name in NAMES}


def translation(run: Run) -> list[dict[str, Any]]:
    """Move the images of one class along one direction (Davari et al. 2022), and read a probe on what results."""
    layer = run.layers[2]
    x, z = (side[STEPS[-1]].rows[layer].double() for side in (run.train, run.test))
    direction = torch.randn(x.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    direction *= (x - x.mean(0)).square().sum(1).mean().sqrt() / direction.norm()
    rows = []
    for shift in SHIFTS:
        moved, moved_z = (
            side + shift * (labels == 0).double()[:, None] * direction for side, labels in ((x, Y_TRAIN), (z, Y_TEST))
        )
        rows.append({"shift": shift, "accuracy": accuracy(probe(moved, moved_z)), **similarities(x, moved)})
    return rows


def before_and_after(run: Run, twin: Run) -> dict[str, dict[str, float]]:
    """Compare step 0 with step t: whether the measure follows what a probe predicts, how much twin runs differ."""
    last, few = STEPS[-1], slice(len(Y_TRAIN) // 5)
    changes, apart, twins, fewer = [], [], [], []
    for layer in run.layers:
        rows = [run.train[step].rows[layer] for step in STEPS]
        probed = [probe(each, run.test[step].rows[layer]) for each, step in zip(rows, STEPS, strict=True)]
        changes.append([float((probed[0] != later).mean()) for later in probed])
        apart.append([similarities(rows[0], each) for each in rows])
        twins.append(similarities(rows[-1], twin.train[last].rows[layer]))
        for corrected in (False, True):
            all_of = similarities(rows[0], rows[-1], corrected)
            some = similarities(rows[0][few], rows[-1][few], corrected)
            fewer.append({name: some[name] - all_of[name] for name in MEASURES})
    return {name: _scores(name, np.array(changes), apart, twins, fewer) for name in MEASURES}


def _scores(name: str, changes: np.ndarray, apart: Any, twins: Any, fewer: Any) -> dict[str, float]:
    away = 1 - np.array([[each[name] for each in layer] for layer in apart])
    over_time = [_rank_correlation(one, other) for one, other in zip(away, changes, strict=True)]
    return {
        "follows_over_time": float(np.mean(over_time)),
        "follows_overall": _rank_correlation(away.ravel(), changes.ravel()),
        "change": float(away[:, -1].mean()),
        "change_over_twins": float(away[:, -1].mean() / (1 - np.array([each[name] for each in twins])).mean()),
        "deep_minus_shallow": float(away[3:, -1].mean() - away[:2, -1].mean()),
        "few_minus_all": float(np.mean([each[name] for each in fewer[0::2]])),
        "few_minus_all_corrected": float(np.mean([each[name] for each in fewer[1::2]])),
    }


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean, 90 % Student interval over seeds, and every seed's value."""
    array = np.array(values)
    reach = student.ppf(0.95, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    mean = float(array.mean())
    return {"mean": mean, "low": float(mean - reach), "high": float(mean + reach), "seeds": list(values)}


def study(name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """All tests of one kind of network."""
    runs = [Run(NETWORKS[name], seed) for seed in seeds]
    twins = [Run(NETWORKS[name], seed, order=1) for seed in seeds]
    nexts = [*runs[1:], runs[0]]
    last = STEPS[-1]
    deletions = [deletion_scores(list(deletion(run, other))) for run, other in zip(runs, nexts, strict=True)]
    sames = [same_layer(run.train[last], other.train[last]) for run, other in zip(runs, nexts, strict=True)]
    times = [before_and_after(run, twin) for run, twin in zip(runs, twins, strict=True)]
    moved, keys = [translation(run) for run in runs], ("accuracy", *MEASURES)
    return {
        "accuracy": over_seeds([run.accuracy for run in runs]),
        "deletion": _each(deletions), "before_and_after": _each(times),
        "same_layer": {each: over_seeds([same[each] for same in sames]) for each in NAMES},
        "translation": [
            {"shift": shift} | {key: over_seeds([rows[index][key] for rows in moved]) for key in keys}
            for index, shift in enumerate(SHIFTS)
        ],
    }  # fmt: skip


def _each(cases: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, Any]]:
    first = cases[0]
    return {
        name: {score: over_seeds([case[name][score] for case in cases]) for score in scores}
        for name, scores in first.items()
    }


_COLUMNS = {
    "deletion: rank correlation": ("deletion", "rank_correlation"),
    "unnoticed loss": ("deletion", "unnoticed_loss"),
    "follows over time": ("before_and_after", "follows_over_time"),
    "follows overall": ("before_and_after", "follows_overall"),
    "change / twins": ("before_and_after", "change_over_twins"),
    "deep - shallow": ("before_and_after", "deep_minus_shallow"),
    "few - all": ("before_and_after", "few_minus_all"),
    "corrected": ("before_and_after", "few_minus_all_corrected"),
}


def table(found: Mapping[str, Any]) -> str:
    """The scores as markdown tables."""
    lines = [f"| measure | same layer | {' | '.join(_COLUMNS)} |", "|---|" + "---|" * (1 + len(_COLUMNS))]
    for name in MEASURES:
        same = found["same_layer"].get(name)
        cells = [same, *(found[test][name][score] for test, score in _COLUMNS.values())]
        lines.append(f"| {name} | {' | '.join('-' if each is None else _short(each) for each in cells)} |")
    shifts = found["translation"]
    lines += ["", f"| shift | {' | '.join(str(row['shift']) for row in shifts)} |", "|---|" + "---|" * len(shifts)]
    for name in ("accuracy", *MEASURES):
        lines.append(f"| {name} | {' | '.join(_short(row[name]) for row in shifts)} |")
    return "\n".join(lines)


def _short(score: Mapping[str, Any]) -> str:
    return f"{score['mean']:.2f} ({score['low']:.2f} to {score['high']:.2f})"


def main() -> None:
    """Run all of it and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    started = time.process_time()
    found: dict[str, Any] = {}
    for name in NETWORKS:
        found[name] = study(name, seeds)
        print(f"{name}, test accuracy {found[name]['accuracy']['mean']:.3f}\n{table(found[name])}\n")
    about = {"seeds": len(seeds), "steps": STEPS, "n": len(Y_TRAIN), "n_test": len(Y_TEST), "lr": LR, "batch": BATCH}
    versions: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version()}
    versions["cpu_seconds"] = round(time.process_time() - started, 1)
    write_json(OUT, _json({"about": about, "versions": versions, **found}))


def _json(value: Any) -> Any:
    """Plain values; a number that is missing is None."""
    if isinstance(value, Mapping):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


if __name__ == "__main__":
    main()

"""From stored results to the table that the rule judges, and to the numbers that are only shown."""

from itertools import combinations
from typing import Any

import numpy as np
import torch

from closerlook.agreement import Agreement, compare_logits, ensemble_logits
from closerlook.landscape import Profile
from closerlook.steps.setting import network
from closerlook.studies import predictions
from closerlook.studies.plan import Results
from closerlook.studies.stored import Array, Row, rates, row, training
from closerlook.weights import WeightSpace, distance

ARMS = {
    "R": "R: warm restarts", "K": "K: cooled trunk", "S": "S: step decay, cooled", "C": "C: one cosine",
    "R'": "R': forked restart", "I": "I: two seeds",
}  # fmt: skip


def table(results: Results) -> list[Row]:
    """Rows arm, seed, quantity, value: what the rule judges. A missing value is NaN.

    Accuracies are those of the last floor on the whole test set. Separations are ratios to the mean over all
    pairs of seeds, so that every arm has the same denominator.
    """
    seeds, (early, late) = results.plan.seeds, results.plan.about["floors"][-2:]
    pairs = [f"{a}-{b}" for a, b in combinations(seeds, 2)]
    rows = [row("I", pair, "seed_barrier", barrier(results, f"I/{pair}/segment")) for pair in pairs]
    apart = [_disagreement(results, ("R", a, late), ("R", b, late)) for a, b in combinations(seeds, 2)]
    between, disagreeing = _mean([each["value"] for each in rows]), _mean(apart)
    for seed in seeds:
        rows.append(row("R", seed, "self_barrier", barrier(results, f"R/{seed}/self")))
        for arm in ("R", "K", "S"):
            height = barrier(results, f"{arm}/{seed}/segment/{early}-{late}")
            apart_here = _disagreement(results, (arm, seed, early), (arm, seed, late))
            rows.append(row(arm, seed, "separation", _ratio(height, between)))
            rows.append(row(arm, seed, "function_separation", _ratio(apart_here, disagreeing)))
        if f"R'/{seed}/segment" in results.plan.roles:
            rows.append(row("R'", seed, "separation", _ratio(barrier(results, f"R'/{seed}/segment"), between)))
        for arm in ("R", "K", "S", "C"):
            if f"{arm}/{seed}/train" in results.plan.roles:
                rows.append(row(arm, seed, "accuracy", accuracy(results, arm, seed, str(late))))
    return rows


def _mean(values: list[float]) -> float:
    # Of the unit of a ratio: with one value missing there is none.
    return float(np.mean(values)) if values else float("nan")


def _ratio(value: float, unit: float) -> float:
    return value / unit if unit > 0 else float("nan")


def profile_of(results: Results, role: str) -> Profile | None:
    """A stored profile, or None when an end of it is missing."""
    return Profile.from_dict(results.folder(role).result("profile")) if results.has(role) else None


def barrier(results: Results, role: str, definition: Any = "above_ends") -> float:
    """Barrier of the training loss on a stored profile; NaN when it is missing."""
    found = profile_of(results, role)
    return float("nan") if found is None else found.barrier("train", "loss", definition).value


def logits(results: Results, arm: str, seed: int) -> dict[str, torch.Tensor] | None:
    """Logits by point, with the targets, or None when the arm diverged."""
    return predictions.logits(results, f"{arm}/{seed}/predict")


def accuracy(results: Results, arm: str, seed: int, point: str) -> float:
    """Test accuracy of a point; a run that diverged is as good as chance."""
    held = logits(results, arm, seed)
    return predictions.chance(results) if held is None else predictions.accuracy(held, point)


def agreement(results: Results, a: tuple[str, int, int], b: tuple[str, int, int]) -> Agreement | None:
    """Agreement on the test set of two floors (arm, seed, epoch), or None when one is missing."""
    first, second = (logits(results, arm, seed) for arm, seed, _ in (a, b))
    if first is None or second is None:
        return None
    one, two, targets = first[str(a[2])], second[str(b[2])], first["targets"]
    return compare_logits(one, two, one.argmax(1) == targets, two.argmax(1) == targets)


def _disagreement(results: Results, a: tuple[str, int, int], b: tuple[str, int, int]) -> float:
    found = agreement(results, a, b)
    return float("nan") if found is None else found.disagreement


def gains(results: Results) -> dict[str, dict[int | str, list[float]]]:
    """Test accuracy by arm and seed of the last floor, the average and the ensemble of the last two floors."""
    early, late = (str(floor) for floor in results.plan.about["floors"][-2:])
    found: dict[str, dict[int | str, list[float]]] = {}
    for arm in ("R", "K", "S"):
        for seed in results.plan.seeds:
            held = logits(results, arm, seed)
            if held is not None:
                ensemble = ensemble_logits([held[early], held[late]], held["targets"]).accuracy
                kept = [accuracy(results, arm, seed, point) for point in (late, "average")]
                found.setdefault(arm, {})[seed] = [*kept, ensemble]
    return found


def distances(results: Results, role: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs of a training's snapshots, and the distance of the weights there from the initial ones."""
    recipe, folder = training(results, role), results.folder(role)
    space = WeightSpace(network(recipe.model, recipe.data, seed=0))
    steps = sorted({recipe.step(time) for time in (0, *recipe.snapshots, "1dur")})
    paths = {step: folder.path / "checkpoints" / f"step-{step:06d}.safetensors" for step in steps}
    points = {step: space.point(path).vector for step, path in paths.items() if path.exists()}
    found = [distance(vector, points[0]) for vector in points.values()]
    return np.array(list(points)) / recipe.clock.steps_per_epoch, np.array(found)


def rates_at(results: Results, role: str, epochs: Array) -> Array:
    """Learning rate of a training at the given epochs; NaN after its end."""
    recipe = training(results, role)
    return rates(recipe, np.floor(epochs * recipe.clock.steps_per_epoch))


def summed_rates(results: Results) -> dict[str, tuple[float, float]]:
    """Learning rate summed up to each of the last two floors, over that of R: equal by design, within a tenth."""
    seed, floors = results.plan.seeds[0], results.plan.about["floors"][-2:]
    totals = {arm: [_summed(results, arm, seed, floor) for floor in floors] for arm in ("R", "K", "S")}
    return {arm: (early / totals["R"][0], late / totals["R"][1]) for arm, (early, late) in totals.items()}


def _summed(results: Results, arm: str, seed: int, floor: int) -> float:
    cool = results.plan.about["cool"][0] if arm != "R" else 0
    total = _sum_to(results, f"{arm}/{seed}/train", floor - cool)
    return total + (_sum_to(results, f"{arm}/{seed}/cool{floor}", cool) if cool else 0.0)


def _sum_to(results: Results, role: str, epochs: int) -> float:
    recipe = training(results, role)
    factor = recipe.schedule.factor(recipe.clock)
    return sum(factor(step) for step in range(recipe.step(epochs)))

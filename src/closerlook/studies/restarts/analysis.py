"""What the restarts study asks, and its tables."""

from itertools import combinations

import numpy as np

from closerlook.report import Table
from closerlook.studies.plan import Results
from closerlook.studies.restarts import layer_tables, numbers
from closerlook.studies.restarts.numbers import ARMS

QUESTION = (
    "Do restarts move to another solution in a way that training without restarts does not, and is that why they help?"
)
NOTES = (
    "Exploratory, outside the rule: everything but the parts and controls above.",
    "What would refute claim (a): restarts separate floors more than the cooled trunk, in weights and in function, and "
    "gain accuracy with it. What would refute the escape account: equal separation or equal accuracy without a "
    "restart.",
    "Training of the curves uses all training images, the readings a part of them; statistics images carry no loss.",
    "Sources: Gotmare et al. 2019 (arXiv 1810.13243), section 3; Loshchilov and Hutter 2017 (arXiv 1608.03983); "
    "Garipov et "
    "al. 2018 (arXiv 1802.10026); Frankle et al. 2020 (arXiv 1912.05671); Fort et al. 2019 (arXiv 1912.02757).",
)


def tables(results: Results) -> tuple[Table, ...]:
    """Every table of the report."""
    makers = (_accuracies, _barriers, _agreements, _confounds, _divergences)
    return (*(make(results) for make in makers), *layer_tables.tables(results))


def _accuracies(results: Results) -> Table:
    seeds, late = results.plan.seeds, str(results.plan.about["floors"][-1])
    arms = [arm for arm in ("R", "K", "S", "C") if f"{arm}/{seeds[0]}/predict" in results.plan.roles]
    rows = []
    for arm in arms:
        values = [numbers.accuracy(results, arm, seed, late) for seed in seeds]
        rows.append((ARMS[arm], *(_percent(value) for value in values), _percent(float(np.mean(values)))))
    return Table(
        "accuracy", "Test accuracy of the last floor (%)",
        ("arm", *(f"seed {seed}" for seed in seeds), "mean"), tuple(rows),
        "On the whole test set, with each network's own batch-norm statistics. A diverged run counts as chance.",
    )  # fmt: skip


def _barriers(results: Results) -> Table:
    early, late = results.plan.about["floors"][-2:]
    roles = {
        **{f"{arm}/{seed}/segment/{early}-{late}": (arm, str(seed)) for arm in "RKS" for seed in results.plan.seeds},
        **{f"R/{seed}/along/{early}-{late}": ("curve of R", str(seed)) for seed in results.plan.seeds},
        **{f"R'/{seed}/segment": ("R'", str(seed)) for seed in results.plan.seeds},
        **{f"I/{a}-{b}/segment": ("I", f"{a}-{b}") for a, b in combinations(results.plan.seeds, 2)},
    }
    rows = []
    for role, (arm, seed) in roles.items():
        found = numbers.profile_of(results, role)
        if found is not None:
            heights = [
                found.barrier("train", "loss", kind).value
                for kind in ("above_ends", "above_line", "above_mean_of_ends")
            ]
            ends = found.metric("train", "loss")[[0, -1]]
            rows.append((ARMS.get(arm, arm), seed, *ends, *heights, float(np.sum(found.steps))))
    return Table(
        "barriers", "Barriers and lengths",
        ("path", "seed", "loss at 0", "loss at 1", "above ends", "above line", "above mean", "length"),
        tuple(rows),
        "Training loss in nats unless said; length is the Euclidean distance of weights along the path. A "
        "segment whose "
        "ends differ in loss can fall all the way and show no barrier above its ends: hence the height above the line.",
    )  # fmt: skip


def _agreements(results: Results) -> Table:
    seeds, (early, late) = results.plan.seeds, results.plan.about["floors"][-2:]
    within = {(ARMS[arm], str(seed)): ((arm, seed, early), (arm, seed, late)) for arm in "RKS" for seed in seeds}
    between = {(ARMS["I"], f"{a}-{b}"): (("R", a, late), ("R", b, late)) for a, b in combinations(seeds, 2)}
    found = {name: numbers.agreement(results, *pair) for name, pair in {**within, **between}.items()}
    rows = tuple(
        (*name, 100 * one.disagreement, one.kl_a_b, one.kl_b_a, 100 * one.error_overlap)
        for name, one in found.items()
        if one is not None
    )
    return Table(
        "agreement", "Agreement of the last two floors on the test set",
        ("arm", "seed", "disagreement (%)", "KL, early to late", "KL, late to early", "shared errors (%)"), rows,
        "Share of test images with different labels; divergences in nats; images that both get wrong over those "
        "that one "
        "gets wrong.",
    )  # fmt: skip


def _confounds(results: Results) -> Table:
    early, late = results.plan.about["floors"][-2:]
    rows = tuple((ARMS[arm], *pair) for arm, pair in numbers.summed_rates(results).items())
    return Table(
        "rates", "Summed learning rate up to the floors, over that of R",
        ("arm", f"floor {early}", f"floor {late}"), rows,
        "K is to lie within a tenth of R at both floors; S need not.",
    )  # fmt: skip


def _divergences(results: Results) -> Table:
    runs = {role: recipe for role, recipe in results.plan.roles.items() if recipe.kind == "train"}
    ended = {role: results.folder(role).result("outcome")["diverged_at"] for role in runs if results.has(role)}
    rows = tuple((role, step) for role, step in ended.items() if step is not None)
    missing = tuple((role, "not started: its trunk diverged") for role in runs if not results.has(role))
    return Table("divergence", "Runs that diverged", ("run", "at step"), rows + missing or (("none", "-"),))


def _percent(value: float) -> float:
    return round(100 * value, 2)

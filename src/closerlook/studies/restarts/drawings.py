"""The figures of the restarts study, from stored numbers."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations

import numpy as np

from closerlook import figures
from closerlook.landscape import Surface
from closerlook.report import Figure
from closerlook.studies.plan import Results
from closerlook.studies.restarts import numbers, representations
from closerlook.studies.restarts.numbers import ARMS
from closerlook.studies.stored import padded

STATISTICS = "batch-norm statistics recomputed at every point on training images that carry no loss here"


def drawings(results: Results) -> tuple[Figure, ...]:
    """Every figure whose numbers exist, in the order of the report."""
    makers: tuple[Callable[[Results], Iterator[Figure]], ...] = (
        _training, _arms, _paths, _matrix, _planes, _norms, _gains, representations.drawings,
    )  # fmt: skip
    return tuple(figure for make in makers for figure in make(results))


def _training(results: Results) -> Iterator[Figure]:
    plan = results.plan
    arms = [arm for arm in ("R", "K", "S", "C") if f"{arm}/{plan.seeds[0]}/train" in plan.roles]
    floors, times = plan.about["floors"], np.arange(0, plan.about["epochs"][0], 0.1)
    rates = {ARMS[arm]: numbers.rates_at(results, f"{arm}/{plan.seeds[0]}/train", times) for arm in arms}
    epochs, scores = {}, dict[str, dict[int | str, np.ndarray]]()
    for arm in arms:
        by_seed = {seed: results.folder(f"{arm}/{seed}/train").epochs() for seed in plan.seeds}
        epochs[ARMS[arm]] = np.array([row["epoch"] for row in max(by_seed.values(), key=len)])
        scores[ARMS[arm]] = {
            seed: np.array([row["validation_accuracy"] for row in rows]) for seed, rows in by_seed.items()
        }
    top, bottom = figures.panels(2)
    figures.learning_rate(times, rates, top, floors=floors)
    figures.accuracy(epochs, scores, bottom, floors=floors)
    yield Figure(
        "training", "Learning rate and validation accuracy",
        "Learning rate, and accuracy on held-out training images, against epoch, every seed a thin line. "
        "Of K and S the trunks are shown; what is compared are branches cooled from them. Ticks: floors.",
        figures.to_svg(top, "Learning rate and validation accuracy against epoch", "training"),
    )  # fmt: skip


def _arms(results: Results) -> Iterator[Figure]:
    early, late = results.plan.about["floors"][-2:]
    groups = {
        **{arm: [f"{arm}/{seed}/segment/{early}-{late}" for seed in results.plan.seeds] for arm in ("R", "K", "S")},
        "R'": [f"R'/{seed}/segment" for seed in results.plan.seeds],
        "I": [f"I/{a}-{b}/segment" for a, b in combinations(results.plan.seeds, 2)],
    }
    (ax,) = figures.panels(1)
    lines: dict[str, dict[int | str, np.ndarray]] = {}
    t = np.linspace(0, 1, 2)
    for arm, roles in groups.items():
        found = {role: numbers.profile_of(results, role) for role in roles if role in results.plan.roles}
        kept = {role: profile for role, profile in found.items() if profile is not None}
        if kept:
            t = next(iter(kept.values())).t
            lines[ARMS[arm]] = {role: profile.metric("train", "loss") for role, profile in kept.items()}
    figures.segments(t, lines, "training loss (nats)", ax)
    yield Figure(
        "arms", "Straight segments of every arm",
        f"Training loss on the segment between the floors {early} and {late} of each arm, between the two "
        f"branches of the "
        f"forked restart, and between the last floors of two seeds; {STATISTICS}.",
        figures.to_svg(ax, "Training loss along the straight segment, by arm", "arms"),
    )  # fmt: skip


def _paths(results: Results) -> Iterator[Figure]:
    for a, b in combinations(results.plan.about["floors"], 2):
        shown = (("train", "loss", "training loss (nats)", 1), ("test", "loss", "test loss (nats)", 1),
                 ("test", "accuracy", "test accuracy (%)", 100))  # fmt: skip
        axes = figures.panels(len(shown))
        for ax, (split, metric, label, unit) in zip(axes, shown, strict=True):
            found = {
                (kind, seed): numbers.profile_of(results, f"R/{seed}/{kind}/{a}-{b}")
                for kind in ("segment", "along")
                for seed in results.plan.seeds
            }
            there = {key: profile for key, profile in found.items() if profile is not None}
            t, lines = figures.aligned([(p.t, unit * p.metric(split, metric)) for p in there.values()])
            by_kind: dict[str, dict[int | str, np.ndarray]] = {"segment": {}, "along": {}}
            for (kind, seed), line in zip(there, lines, strict=True):
                by_kind[kind][seed] = line
            figures.path(t, by_kind["segment"], by_kind["along"], label, ax=ax)
        yield Figure(
            f"path-{a}-{b}", f"Between the floors {a} and {b} of the restarted runs",
            "Along the straight segment and along the trained curve (one bend), every seed a thin line; "
            f"{STATISTICS}. A curve exists between any two networks and enters no verdict.",
            figures.to_svg(axes[0], f"Loss and accuracy between floors {a} and {b}", f"path-{a}-{b}"),
        )  # fmt: skip


def _matrix(results: Results) -> Iterator[Figure]:
    if not results.has("I/matrix"):
        return
    stored = results.folder("I/matrix").result("barriers")
    names = [label.split(" seed ") for label in stored["labels"]]
    order = sorted(range(len(names)), key=lambda place: (int(names[place][1]), int(names[place][0])))
    values = np.array(stored["values"])[np.ix_(order, order)]
    (ax,) = figures.panels(1, height=5.0)
    figures.matrix(
        values, [stored["labels"][place] for place in order], "training-loss barrier, above the higher end", "nats", ax,
        groups=[f"seed {names[place][1]}" for place in order],
    )  # fmt: skip
    yield Figure(
        "matrix", "Barriers between floors and seeds",
        f"Height of the training loss on the segment above its higher end, {stored['points']} points a segment, "
        f"read on "
        f"the first seed's images; {STATISTICS}.",
        figures.to_svg(ax, "Barrier matrix over floors and seeds", "matrix"),
    )  # fmt: skip


def _planes(results: Results) -> Iterator[Figure]:
    early, late = results.plan.about["floors"][-2:]
    for seed in results.plan.seeds:
        role = f"R/{seed}/plane"
        if not results.has(role):
            continue
        plane = Surface.from_dict(results.folder(role).result("surface"))
        named = {"w_0": str(early), "w_1": "bend", "w_2": str(late)}
        marks = {named[name]: (m.x, m.y, m.distance) for name, m in plane.marks.items() if name in named}
        run = [plane.marks[name] for name in sorted((n for n in plane.marks if n not in named), key=int)]
        trajectory = ([[m.x, m.y] for m in run], [m.distance for m in run])
        bend = np.array([[plane.marks[name].x, plane.marks[name].y] for name in ("w_0", "w_1", "w_2")])
        axes = figures.panels(2, height=4.2)
        for ax, split in zip(axes, ("train", "test"), strict=True):
            figures.surface(
                plane.x, plane.y, plane.values[f"{split}_loss"], marks, bend, trajectory, ax,
                split=split, batch_stats=plane.batch_stats,
            )  # fmt: skip
        yield Figure(
            f"plane-{seed}", f"Loss on the plane through the floors {early}, {late} and the bend, seed {seed}",
            "Training loss (above) and test loss (below), logarithmic colours. White: the trained curve. Circles: the "
            f"run's iterates projected on the plane, larger the further off it they lie; {STATISTICS}.",
            figures.to_svg(axes[0], f"Loss on a plane of weight space, seed {seed}", f"plane-{seed}"),
        )  # fmt: skip


def _norms(results: Results) -> Iterator[Figure]:
    floors, seeds = results.plan.about["floors"], results.plan.seeds
    roles = {arm: [f"{arm}/{seed}/train" for seed in seeds] for arm in ("R", "K", "S")}
    rows = {arm: [results.folder(role).epochs() for role in of_arm] for arm, of_arm in roles.items()}
    epochs = np.array([row["epoch"] for row in max((run for runs in rows.values() for run in runs), key=len)])
    norms = {
        arm: padded([[row["weight_norm"] for row in run] for run in runs], len(epochs)) for arm, runs in rows.items()
    }
    walks = {arm: [numbers.distances(results, role) for role in of_arm] for arm, of_arm in roles.items()}
    times = max((walk[0] for runs in walks.values() for walk in runs), key=len)
    moved = {arm: padded([walk[1] for walk in runs], len(times)) for arm, runs in walks.items()}
    top, bottom = figures.panels(2)
    figures.norms(epochs, {ARMS[arm]: values for arm, values in norms.items()}, "weight norm (L2)", top, floors=floors)
    label = "distance from the start (L2)"
    figures.norms(times, {ARMS[arm]: values for arm, values in moved.items()}, label, bottom, floors=floors)
    yield Figure(
        "norms", "Weight norms and distances",
        "Euclidean norm of all weights, and their distance from the initial ones, every seed a thin line. With "
        "batch norm "
        "the filters are free in scale, so distances between floors must be read beside these.",
        figures.to_svg(top, "Weight norm and distance from the start against epoch", "norms"),
    )  # fmt: skip


def _gains(results: Results) -> Iterator[Figure]:
    found: dict[str, Mapping[int | str, list[float]]] = {
        ARMS[arm]: by_seed for arm, by_seed in numbers.gains(results).items()
    }
    if not found:
        return
    ax = figures.gains(["last floor", "average of two", "ensemble of two"], found, ylabel="test accuracy (%)")
    yield Figure(
        "gains", "What averaging and ensembling the last two floors brings",
        "Test accuracy of the last floor, of the mean of the last two floors' weights (statistics estimated "
        "anew), and of "
        "the mean of their probabilities.",
        figures.to_svg(ax, "Gain of averaging and ensembling", "gains"),
    )  # fmt: skip

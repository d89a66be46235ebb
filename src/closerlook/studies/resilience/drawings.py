"""The figures of the resilience study, from stored numbers."""

from collections.abc import Callable, Iterator

import numpy as np

from closerlook import figures
from closerlook.landscape import Profile
from closerlook.report import Figure
from closerlook.studies.plan import Results
from closerlook.studies.resilience import numbers
from closerlook.studies.resilience.embedding import embeddings
from closerlook.studies.resilience.settings import MODES
from closerlook.studies.resilience.words import ALIGNED, name_of

STATISTICS = "batch-norm statistics, where there are any, estimated at every point on training images without errors"
Lines = dict[str, tuple[np.ndarray, dict[int | str, np.ndarray]]]


def drawings(results: Results) -> tuple[Figure, ...]:
    """Every figure whose numbers exist, in the order of the report."""
    makers: tuple[Callable[[Results], Iterator[Figure]], ...] = (
        _paths, _heights, _budgets, _open, _embedding, _aligned,
    )  # fmt: skip
    return tuple(figure for make in makers for figure in make(results))


def _paths(results: Results) -> Iterator[Figure]:
    axes = figures.panels(4, columns=2, height=2.1, share_y=True)
    there = {mode: _at_times(results, mode) for mode in MODES}
    shown = [(mode, lines) for mode, lines in there.items() if lines]
    if not shown:
        return
    for ax, (mode, lines) in zip(axes, shown, strict=False):
        figures.along(lines, title=name_of(mode), ax=ax)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    yield Figure(
        "paths", "Training accuracy from G to every mode",
        "Along the straight segment, and along the curve after so many epochs of its training; every seed a thin "
        f"line, the mean a thick one. {STATISTICS.capitalize()}.",
        figures.to_svg(figures.one_legend_for(axes), "Accuracy along the path to every mode", "paths"),
    )  # fmt: skip


def _at_times(results: Results, mode: str) -> Lines:
    """Training accuracy in percent along the path at every budget, by seed."""
    found: dict[int, dict[int, Profile]] = {}
    for seed in results.plan.seeds:
        for epoch, profile in numbers.budgets(results, mode, seed).items():
            found.setdefault(epoch, {})[seed] = profile
    lines: Lines = {}
    for epoch, by_seed in sorted(found.items()):
        name = f"{epoch} epochs" if epoch else "segment"
        t = next(iter(by_seed.values())).t
        lines[name] = (t, {seed: 100 * each.metric("train", "accuracy") for seed, each in by_seed.items()})
    return lines


def _heights(results: Results) -> Iterator[Figure]:
    seeds = results.plan.seeds
    axes = figures.panels(2, height=3.0)
    for ax, name, what in zip(axes, ("segment", "along"), ("straight segment", "trained curve"), strict=True):
        lines: dict[str, dict[int | str, list[float]]] = {}
        for rest, label in (("", "initial weights of its own"), (" shared", "initial weights of G")):
            by_seed = {
                seed: [100 * numbers.barrier(results, f"{mode}{rest}/{seed}/{name}") for mode in MODES]
                for seed in seeds
            }
            there = [seed for seed, each in by_seed.items() if np.isfinite(each).any()]
            if there:
                lines[label] = {seed: by_seed[seed] for seed in there}
        figures.layer_profile(MODES, lines, f"{what}: barrier (points)", ax)
        ax.axhline(100 * numbers.CLOSED, color="0.4", linewidth=0.8)
    axes[1].get_legend().remove()  # type: ignore[union-attr]
    axes[1].set_xlabel("mode at the other end")
    yield Figure(
        "heights", "Barriers of training error",
        "Largest training error on the path from G less that of its worse end, in points. Every seed a thin line, the "
        "mean a thick one; the lines join modes only to show which values are of one seed. Grey: 2 points.",
        figures.to_svg(axes[0], "Barriers of segments and curves by mode", "heights"),
    )  # fmt: skip


def _budgets(results: Results) -> Iterator[Figure]:
    epochs = np.array([0, *results.plan.about["budgets"]])
    heights = {}
    for mode in MODES:
        found = [numbers.budgets(results, mode, seed) for seed in results.plan.seeds]
        by_seed = [[_height(of.get(int(epoch))) for epoch in epochs] for of in found]
        heights[name_of(mode)] = np.array(by_seed)
    (ax,) = figures.panels(1)
    figures.norms(epochs, heights, "barrier of training error (points)", ax)
    ax.axhline(100 * numbers.CLOSED, color="0.4", linewidth=0.8)
    ax.set_xlabel("epochs of curve training")
    yield Figure(
        "budgets", "What a budget of curve training buys",
        "Barrier of the training error on the path after so many epochs of curve training, 0 the straight segment; the "
        "learning rate falls at the end of the budget, so what is read before it is no curve trained to its end. "
        "Every seed a thin line. Grey: 2 points.",
        figures.to_svg(ax, "Barrier against curve training", "budgets"),
    )  # fmt: skip


def _height(profile: Profile | None) -> float:
    return float("nan") if profile is None else 100 * profile.barrier("train", "error").value


def _open(results: Results) -> Iterator[Figure]:
    seed = results.plan.seeds[0]
    pairs = {"as wide as the modes": f"G'/{seed}", "narrow, short budget": f"G' narrow/{seed}"}
    axes = figures.panels(2, height=2.4)
    for ax, (name, role) in zip(axes, pairs.items(), strict=True):
        found = {what: numbers.profile_of(results, f"{role}/{what}") for what in ("segment", "along")}
        lines: Lines = {
            {"segment": "segment", "along": "trained curve"}[what]: (
                each.t, {seed: 100 * each.metric("train", "accuracy")},
            )
            for what, each in found.items() if each is not None
        }  # fmt: skip
        if not lines:
            return
        figures.along(lines, title=name, ax=ax)
    yield Figure(
        "open", "A curve that does not close",
        f"Training accuracy between G and the same recipe again, seed {seed}: at the width of the study, and at a "
        "smaller one with a short budget for the curve. The test can fail.",
        figures.to_svg(figures.one_legend_for(axes), "A pair that the curve joins, and one that it does not", "open"),
    )  # fmt: skip


def _embedding(results: Results) -> Iterator[Figure]:
    seed = results.plan.seeds[0]
    found = embeddings(results, seed)
    if found is None:
        return
    components, neighbours = found
    assert components.explained is not None
    axes = figures.panels(2, height=4.2, share_x=False)
    shares = [f"component {axis} ({100 * of:.0f} % of variance)" for axis, of in enumerate(components.explained, 1)]
    for ax, each, labels in ((axes[0], components, shares), (axes[1], neighbours, ["t-SNE 1", "t-SNE 2"])):
        figures.embedding(each.modes, each.bends, each.curves, labels[0], labels[1], ax)
    yield Figure(
        "embedding", "Modes, bends and curves in two dimensions",
        f"Seed {seed}. Dots: modes; crosses: bends; small dots: points of the curves. Above, principal components of "
        "modes and bends: distances are those of weights, as far as the two axes hold them. Below, t-SNE as in the "
        "paper: it keeps who is near whom, so lengths, gaps and the shape of a curve mean nothing there.",
        figures.to_svg(axes[0], "Embedding of modes and bends", "embedding"),
    )  # fmt: skip


def _aligned(results: Results) -> Iterator[Figure]:
    (ax,) = figures.panels(1)
    found = {
        name: {seed: numbers.profile_of(results, role.format(seed)) for seed in results.plan.seeds}
        for name, role in ALIGNED.items()
    }
    kept = {name: {seed: each for seed, each in of.items() if each is not None} for name, of in found.items()}
    lines = {name: of for name, of in kept.items() if of}
    if "aligned" not in lines:
        return
    t, values = figures.aligned([
        (each.t, each.metric("train", "loss")) for of in lines.values() for each in of.values()
    ])  # fmt: skip
    rest = iter(values)
    by_name: dict[str, dict[int | str, np.ndarray]] = {
        name: {seed: next(rest) for seed in of} for name, of in lines.items()
    }
    figures.segments(t, by_name, "training loss (nats)", ax)
    ax.set_xlabel("position t on the path (0 to 1)")
    yield Figure(
        "aligned", "The same recipe again, with its units put in the order of G",
        "Training loss from G to G': raw, with the two ends' batch-norm statistics interpolated; with statistics "
        "estimated at every point; after the hidden units of G' were permuted to lie near those of G; and both, "
        "which with batch norm is the repair of Jordan et al. 2022 (arXiv 2211.08403).",
        figures.to_svg(ax, "Loss from G to the permuted G'", "aligned"),
    )  # fmt: skip

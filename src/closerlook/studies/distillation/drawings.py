"""The figures of the distillation study, from stored numbers."""

from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.axes import Axes

from closerlook import figures
from closerlook.report import Figure
from closerlook.studies.compared import Array, Compared, found_in, key, mean, named, one_legend
from closerlook.studies.distillation import numbers, probed
from closerlook.studies.distillation.words import name_of
from closerlook.studies.plan import Results
from closerlook.studies.stored import arms_of


def drawings(results: Results) -> tuple[Figure, ...]:
    """Every figure whose numbers exist, in the order of the report."""
    makers: tuple[Callable[[Results], Iterator[Figure]], ...] = (_outcomes, _splits, _depth, _maps, probed.drawings)
    return tuple(figure for make in makers for figure in make(results))


def _outcomes(results: Results) -> Iterator[Figure]:
    seeds, arms = results.plan.seeds, [arm for arm in arms_of(results) if not arm.startswith(("TL:", "TE:"))]
    apart: dict[int | str, list[float]] = {seed: [_divergence(results, arm, seed) for arm in arms] for seed in seeds}
    scores: dict[int | str, list[float]] = {
        seed: [100 * numbers.accuracy(results, arm, seed) for arm in arms] for seed in seeds
    }
    top, bottom = figures.panels(2, height=3.4)
    for ax, values, label in ((top, scores, "test accuracy (%)"), (bottom, apart, "divergence (nats)")):
        figures.layer_profile(arms, {"seeds": values}, label, ax)
    bottom.set_xlabel("arm")
    yield Figure(
        "outcomes", "Test accuracy, and divergence from the teacher",
        "Every seed a thin line, the mean a thick one; the lines join arms only to show which values are of one seed. "
        f"Divergence: Kullback-Leibler from the seed's own teacher, mean over all test images. {_named(arms)}",
        figures.to_svg(one_legend([top, bottom]), "Accuracy and divergence by arm", "outcomes"),
    )  # fmt: skip


def _named(arms: list[str]) -> str:
    return "; ".join(name_of(arm) for arm in arms) + "."


def _divergence(results: Results, arm: str, seed: int) -> float:
    found = None if arm == "T" else numbers.agreement(results, arm, seed)
    return float("nan") if found is None else found.kl_a_b


def _splits(results: Results) -> Iterator[Figure]:
    """What a transplant recovers against the place of the cut; drawn where there is more than one."""
    splits = numbers.splits(results)
    if len(splits) < 2:
        return
    apart = {seed: numbers.divergences(results, seed) for seed in results.plan.seeds}
    lines: dict[str, dict[int | str, list[float]]] = {
        says: {seed: [numbers.recovered(of, arms[kind]) for arms in splits.values()] for seed, of in apart.items()}
        for kind, says in (("TL", "layers after the split re-trained"), ("TE", "layers before the split re-trained"))
    }
    ax = figures.layer_profile([str(split) for split in splits], lines, "share of the divergence recovered")
    for level in (0.0, 1.0):
        ax.axhline(level, color="0.4", linewidth=0.8)
    ax.set_xlabel("layers before the split")
    yield Figure(
        "splits", "What re-training one side of a split recovers",
        "Share of the divergence to the teacher between H (0) and D (1); the other side keeps the weights of H, the "
        "final linear layer is trained anew in all. Every seed a thin line.",
        figures.to_svg(ax, "Divergence recovered by split", "splits"),
    )  # fmt: skip


def _depth(results: Results) -> Iterator[Figure]:
    names, found = numbers.layers(results), numbers.measures(results)
    if not found:
        return
    seeds = results.plan.seeds
    gains = figures.panels(len(found), height=3.0)
    for ax, measure in zip(gains, found, strict=True):
        lines: dict[str, dict[int | str, Array]] = {
            name_of(arm): {seed: numbers.gain(results, arm, seed, measure) for seed in seeds} for arm in ("D", "SP")
        }
        _profile(ax, names, lines, f"room closed, {named(measure)}")
    yield Figure(
        "gain", "Where the student comes closer to its teacher",
        "Share of what the hard-label student lacks to full similarity with the teacher, (sim(X, T) - sim(H, T)) / "
        "(1 - sim(H, T)), per layer and above chance, every seed a thin line. Dashed: the halves that are contrasted "
        "meet here. Where little room is left, as in the first layers, small differences make large shares.",
        figures.to_svg(one_legend(gains), "Share of the room to the teacher closed, by layer", "gain"),
    )  # fmt: skip
    own = figures.panels(len(found), height=3.0)
    for ax, measure in zip(own, found, strict=True):
        lines = {
            name_of(arm): {seed: numbers.specific(results, arm, seed, measure) for seed in seeds} for arm in ("H", "D")
        }
        _profile(ax, names, lines, f"own less others, {named(measure)}")
    yield Figure(
        "specific", "What is specific to the student's own teacher",
        "Similarity to the own teacher less the mean similarity to the other seeds' teachers, per layer and above "
        "chance, every seed a thin line. H has never seen a teacher: what departs from 0 there is chance, or comes of "
        "what a seed gives both, such as training images.",
        figures.to_svg(one_legend(own), "Similarity specific to the own teacher, by layer", "specific"),
    )  # fmt: skip


def _profile(ax: Axes, names: list[str], lines: dict[str, dict[int | str, Array]], label: str) -> None:
    figures.layer_profile(names, lines, label, ax)
    ax.axhline(0.0, color="0.4", linewidth=0.8)
    ax.axvline(len(names) // 2 - 0.5, color="0.4", linewidth=0.8, linestyle="--")


def _maps(results: Results) -> Iterator[Figure]:
    seeds = results.plan.seeds
    found = found_in(results, {arm: {f"seed {seed}": f"{arm}/{seed}/layers-{seed}" for seed in seeds} for arm in "HD"})
    for measure in found.any.measures if found else ():
        assert found is not None
        title, name = f"{named(measure)}: student layers against teacher layers", f"maps-{key(measure)}"
        yield Figure(
            name, title,
            "Mean over seeds. Rows: layers of the student; columns: layers of its teacher. H: hard labels; D: "
            f"distilled; their difference; and the share of the room that is left, (D - H) / (1 - H). "
            f"{found.carried(measure, layers='outputs of activations')}",
            figures.to_svg(_map(found, measure), title, name),
        )  # fmt: skip


def _map(found: Compared, measure: str) -> Axes:
    raw = {arm: found.table(arm, measure) for arm in "HD"}
    shown = [("H", mean(raw["H"])), ("D", mean(raw["D"])), ("D \N{MINUS SIGN} H", mean(raw["D"] - raw["H"]))]
    if found.chance(measure)[1] > 0:
        above = {arm: found.table(arm, measure, "corrected") for arm in "HD"}
        shown.append(("D \N{MINUS SIGN} H, above chance", mean(above["D"] - above["H"])))
    else:
        above = raw
    with np.errstate(divide="ignore", invalid="ignore"):
        shown.append(("share of the room", mean((above["D"] - above["H"]) / (1 - above["H"]))))
    rows, columns = found.layers, [layer.removeprefix("features.") for layer in found.any.layers_b]
    axes = figures.panels(len(shown), height=max(1.6, 0.3 * len(rows)) + 0.9, width=max(5.0, 0.3 * len(columns) + 2.4))
    for ax, (title, values) in zip(axes, shown, strict=True):
        unit = {"H": "similarity", "D": "similarity", "share of the room": "share"}.get(title, "difference")
        figures.heat_map(
            values, rows, columns, title, unit, ax, row_label="student", column_label="teacher",
            difference=unit != "similarity",
        )  # fmt: skip
    return axes[0]

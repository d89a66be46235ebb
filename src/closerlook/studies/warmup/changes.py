"""Exploratory: how far representations move from those of the start, layer by layer, without and with warmup."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

import numpy as np
from matplotlib.axes import Axes

from closerlook import figures
from closerlook.evidence import paired_effect
from closerlook.report import Figure, Table
from closerlook.studies.compared import Array, Compared, counted, each, found_in, key, mean, named, one_legend, present
from closerlook.studies.plan import Results
from closerlook.studies.stored import mean as known_mean
from closerlook.studies.warmup.arms import name_of
from closerlook.studies.warmup.comparisons import AT_RAMP, BASES, COMPARED
from closerlook.studies.warmup.settings import SCALES


def of_basis(results: Results, basis: str) -> Compared | None:
    """What was compared on a basis, by arm and seed."""
    arms = AT_RAMP if basis == "ramp" else COMPARED
    seeds = results.plan.seeds
    return found_in(results, {arm: {f"seed {seed}": f"{arm}/{seed}/layers-{basis}" for seed in seeds} for arm in arms})


def drawings(results: Results) -> Iterator[Figure]:
    """Per basis a profile over layers with all measures, and heat maps of each where there are both N and W."""
    for basis, words in BASES.items():
        found = of_basis(results, basis)
        if found is None:
            continue
        title = f"Similarity of each layer to the start, {words}"
        yield Figure(
            f"layers-{basis}", f"Exploratory: {title}",
            "Every seed a thin line, the mean of those that are there a thick one; 1 is unchanged. "
            f"{_when(results, basis)} {found.carried(*found.any.measures)}",
            figures.to_svg(_profile(found), title, f"layers-{basis}"),
        )  # fmt: skip
        for measure in found.any.measures if all(found.has(arm) for arm in COMPARED) else ():
            title, name = f"{named(measure)} of layers, start against later, {words}", f"layers-{basis}-{key(measure)}"
            yield Figure(
                name, f"Exploratory: {title}",
                f"Mean over seeds. Rows: layers at the start; columns: later. {_when(results, basis)} "
                f"{found.carried(measure)}",
                figures.to_svg(_maps(found, measure), title, name),
            )  # fmt: skip


def _when(results: Results, basis: str) -> str:
    early, ramp = results.plan.about["early"][0], results.plan.about["ramp"][0]
    return {
        "step": f"Both at step {early}.",
        "sum": f"N at step {early}, W where its learning rates have the same sum.",
        "loss": f"W at step {early}; N at the first kept epoch whose mean training loss is as low, if there is one.",
        "ramp": f"All at step {ramp}, where the ramp ends.",
    }[basis]


def _profile(found: Compared) -> Axes:
    axes = figures.panels(len(found.any.measures), height=3.0)
    for ax, measure in zip(axes, found.any.measures, strict=True):
        lines: dict[str, dict[int | str, Array]] = {
            # An arm without any stays in the legend, so that every arm has one colour in all figures.
            name_of(arm): dict(enumerate(present(values) if found.has(arm) else values))
            for arm, values in ((arm, found.same(arm, measure)) for arm in found.found)
        }
        chance = {name_of(arm): mean(found.same(arm, measure, "chance")) for arm in found.found}
        figures.layer_profile(found.layers, lines, named(measure), ax, chance=chance)
    return one_legend(axes)


def _maps(found: Compared, measure: str) -> Axes:
    """N beside W, above chance where that is not 0, and their difference."""
    show = "corrected" if found.chance(measure)[1] > 0 else "value"
    above = ", above chance" if show == "corrected" else ""
    n, w = (found.table(arm, measure, show) for arm in ("N", "W"))
    shown = [(f"N{above}", n), (f"W{above}", w), (f"N \N{MINUS SIGN} W{above}", n - w)]
    names, size = found.layers, 0.3 * len(found.layers)
    axes = figures.panels(len(shown), height=max(1.6, size) + 0.9, width=max(5.0, size + 2.4))
    for ax, (title, values) in zip(axes, shown, strict=True):
        difference = title.startswith("N \N{MINUS SIGN}")
        figures.heat_map(
            mean(values), names, names, title + counted(values), "difference" if difference else "similarity", ax,
            row_label="at the start", column_label="later", difference=difference,
        )  # fmt: skip
    return axes[0]


def tables(results: Results) -> Iterator[Table]:
    """How much further the deep layers move from the start than the others, N minus W, on every basis."""
    rows = []
    for basis, words in BASES.items():
        found = of_basis(results, basis)
        for measure in found.any.measures if found else ():
            assert found is not None
            values = contrasts(results, found, measure)
            told = paired_effect({str(place): float(value) for place, value in enumerate(values)}, 0.0)
            ends = told.intervals[0]
            rows.append((
                words, named(measure), each(values), None if told.mean is None else round(told.mean, 3),
                None if ends.low is None else f"{ends.low:.3f} to {ends.high:.3f}",
            ))  # fmt: skip
    if rows:
        yield Table(
            "deeper", "Exploratory: do deep layers change more without warmup?",
            ("compared", "measure", "each seed", "mean", "90 % interval"), tuple(rows),
            "(1 - similarity to the start above chance), mean over the deep block's layers minus mean over the others, "
            "N minus W. Above 0: without warmup the deep layers move further than with it, by more than the shallow "
            "ones do. A seed without a value is missing.",
        )  # fmt: skip


def contrasts(results: Results, found: Compared, measure: str) -> Array:
    """Per seed the change of the deep layers minus that of the others, N minus W."""
    network = SCALES[results.plan.scale].network
    patterns = network.blocks[network.deep]
    deep = np.array([any(fnmatchcase(layer, each) for each in patterns) for layer in found.any.layers_a])
    n, w = (1 - found.same(arm, measure, "corrected") for arm in ("N", "W"))
    # Over the layers that both have: a layer may lack directions in one of them.
    return np.array([known_mean(row[deep]) - known_mean(row[~deep]) for row in n - w])

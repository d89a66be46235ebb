"""Exploratory figures: what the layers of the floors hold, early against late, as profiles and heat maps."""

from collections.abc import Iterator

from matplotlib.axes import Axes

from closerlook import figures
from closerlook.report import Figure
from closerlook.studies.compared import Compared, counted, key, mean, named, one_legend, present
from closerlook.studies.plan import Results
from closerlook.studies.restarts.compared import ACROSS, LATE, compared
from closerlook.studies.restarts.comparisons import WITHIN
from closerlook.studies.restarts.numbers import ARMS

ROLES = ("layers", "layers-spectral")
_UNTRAINED = "R, early floor against an untrained network"


def drawings(results: Results) -> Iterator[Figure]:
    """A profile over layers with all measures, and heat maps of each."""
    early, late = results.plan.about["floors"][-2:]
    for role in ROLES:
        found = compared(results, role)
        if found is None:
            continue
        title = f"Similarity of each layer, floor {early} against floor {late}"
        yield Figure(
            f"{role}-profile", f"Exploratory: {title}",
            "Every seed a thin line. Bands: lowest to highest of R's pairs of seeds, one's early and another's late "
            f"floor (grey), both late floors (hatched). {found.carried(*found.any.measures)}",
            figures.to_svg(_profile(found), title, f"{role}-profile"),
        )  # fmt: skip
        for measure in found.any.measures:
            title, name = f"{named(measure)} of layers, floor {early} against floor {late}", f"{role}-{key(measure)}"
            above = "Above chance: (value - chance) / (1 - chance). " if found.chance(measure)[1] > 0 else ""
            yield Figure(
                name, f"Exploratory: {title}",
                f"Mean over seeds. Rows: layers at floor {early}; columns: at floor {late}; two seeds: one's early and "
                f"another's late floor. {above}{found.carried(measure)}",
                figures.to_svg(_maps(found, measure), title, name),
            )  # fmt: skip


def _profile(found: Compared) -> Axes:
    axes = figures.panels(len(found.any.measures), height=3.0)
    for ax, measure in zip(axes, found.any.measures, strict=True):
        lines = {ARMS[arm]: found.same(arm, measure) for arm in WITHIN}
        untrained = present(found.same("R", measure, "random"))
        if len(untrained):
            lines[_UNTRAINED] = untrained
        pairs = {name: present(found.same(name, measure)) for name in (ACROSS, LATE)}
        figures.layer_profile(
            found.layers, {name: dict(enumerate(values)) for name, values in lines.items()}, named(measure), ax,
            chance={ARMS[arm]: mean(found.same(arm, measure, "chance")) for arm in WITHIN},
            references={name: (values.min(0), values.max(0)) for name, values in pairs.items() if len(values)},
        )  # fmt: skip
    return one_legend(axes)


def _maps(found: Compared, measure: str) -> Axes:
    """R beside K, as they are and above chance; below them two seeds and R - K. Without chance the two are one."""
    known = ("value", "corrected") if found.chance(measure)[1] > 0 else ("value",)
    above = {"value": "", "corrected": ", above chance"}
    shown = [(f"{arm}{above[show]}", found.table(arm, measure, show)) for show in known for arm in ("R", "K")]
    show, (r, k) = known[-1], (values for _, values in shown[-2:])
    shown += [
        (f"two seeds{above[show]}", found.table(ACROSS, measure, show)),
        (f"R \N{MINUS SIGN} K{above[show]}", r - k),
    ]
    names, size = found.layers, 0.3 * len(found.layers)
    axes = figures.panels(len(shown) // 2, height=max(1.6, size) + 0.7, width=max(5.0, 2 * size + 1.9), columns=2)
    for number, (ax, (title, values)) in enumerate(zip(axes, shown, strict=True)):
        right, difference = number % 2 == 1, number == len(shown) - 1
        figures.heat_map(
            mean(values), [""] * len(names) if right else names, names, title + counted(values), ax=ax, bar=right,
            row_label="" if right else "early floor", column_label="late floor", difference=difference,
            unit="difference" if difference else "similarity",
        )  # fmt: skip
    return axes[0]

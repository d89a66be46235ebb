import re
import sys
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from closerlook import figures
from closerlook.errors import UsageError
from closerlook.figures.style import by_depth, look

HOSTILE = 'a <script>alert("x")</script> & $x^2$ \x07 ü'
SEEDS = (100, 101, 102)
PART = {"name": "E1", "values": {100: 0.3, 101: 0.5}, "effect": 0.4, "low": 0.2, "high": 0.6, "margin": 0.1}


def lines(count: int = 20) -> dict[int, np.ndarray]:
    return {seed: np.linspace(0.1, 0.7, count) + 0.001 * seed for seed in SEEDS}


def of_surface(ax: Axes | None = None) -> Axes:
    x, y = np.linspace(-1, 5, 9), np.linspace(-1, 3, 7)
    z = 0.1 + (x[None] - 1) ** 2 + y[:, None] ** 2
    run = np.array([[0.0, 0.0], [2.0, 1.0], [4.0, 0.0]])
    return figures.surface(
        x, y, z, {"w35": (0, 0, 0), "far": (2, 1, 7.5)}, run, (run, [0, 6.5, 0]), ax, split="test", batch_stats="kept"
    )


def of_causes(ax: Axes | None = None) -> Axes:
    shares = {"warmed up": [[0.1, np.nan], [0.9, 3.0], [0.4, 0.6]], "frozen": [[0.0, 0.2], [-2.0, -1.0], [0.0, np.inf]]}
    means = {
        "warmed up": [[np.nan] * 3, [1.9, 0.8, 3.1], [0.5, 0.3, 0.7]],
        "frozen": [[0.1, 0.0, 0.2], [-1.5, -2.0, -1.0], [0.0, 0.0, 0.0]],
    }
    return figures.causal_map(["block 1", "head", "random set"], shares, means, ax, controls=1)


def of_phases(ax: Axes | None = None) -> Axes:
    runs = [[[0.8, 0.9, np.nan], [0.1, 0.1, 0.7]], [[np.nan] * 3, [0.1, 0.1, 0.1]]]
    diverged = [[[False] * 3, [True, True, False]], [[False] * 3, [True] * 3]]
    return figures.phase_diagram([0.1, 0.3], [0, 100], runs, diverged, ax)


def of_sharpness(ax: Axes | None = None) -> Axes:
    values = {"N": {1: [4.0, 100.0], 2: [9.0, -1.0, 8.0]}, "W": {1: [1.0, 2.0, np.inf]}}
    thresholds = {"N": [20.0, 20.0, 40.0], "W": [np.inf, 1e9, 1e6]}
    return figures.sharpness_trace(
        {"N": [0, 1, 2], "W": [0, 5, 10]}, values, thresholds, ax, diverged={"N": {1: 1.5, 2: 2}}
    )


BLOCKS = {"block 1": [0.25, np.nan, 0.5], "head": [0.75, 0.2, 0.5]}
MAKERS: dict[str, Callable[[Axes | None], Axes]] = {
    "learning_rate": lambda ax=None: figures.learning_rate([0, 1, 2], {"R": [0.1, 0.05, 1e-6]}, ax, floors=[2]),
    "accuracy": lambda ax=None: figures.accuracy({"R": range(20), "K": range(20)}, {"R": lines(), "K": lines(7)}, ax),
    "norms": lambda ax=None: figures.norms(range(20), {"R": list(lines().values()), "K": range(20)}, ax=ax),
    "path": lambda ax=None: figures.path(np.linspace(0, 1, 20), lines(), lines(), ax=ax),
    "matrix": lambda ax=None: figures.matrix([[0, 1.5], [-1.5, 0]], ["a", "b"], "barrier", ax=ax, groups=["s", "t"]),
    "surface": of_surface,
    "trajectory": lambda ax=None: figures.trajectory([[-4, 0], [-1, 1], [0, 0]], [5, 0.1, 0], "abc", ("u", "v"), ax),
    "forest": lambda ax=None: figures.forest([{**PART, "answer": "yes", "unit": "nats"}], ax),
    "setups": lambda ax=None: figures.setups({"E1": {name: {**PART, "unit": "1"} for name in "AB"}}, ax),
    "causal_map": of_causes,
    "phase_diagram": of_phases,
    "sharpness_trace": of_sharpness,
    "block_shares": lambda ax=None: figures.block_shares([0, 1, 2], BLOCKS, ax),
    "updates": lambda ax=None: figures.updates([0, 1, 2], BLOCKS, ax, title="N"),
    "gains": lambda ax=None: figures.gains(["last", "mean"], {"R": {s: [0.7, 0.8] for s in SEEDS}}, ax),
}
every_figure = pytest.mark.parametrize("name", sorted(MAKERS))


def drawn_axes(ax: Axes) -> list[Axes]:
    return [one for one in [*ax.figure.axes, *ax.child_axes] if one.axison]


def ids(svg: str) -> list[str]:
    return re.findall(r'\sid="([^"]+)"', svg)


@every_figure
def test_every_axis_is_labelled(name: str) -> None:
    ax = MAKERS[name](None)
    for one in drawn_axes(ax):
        has_scale = [axis for axis in (one.xaxis, one.yaxis) if len(axis.get_ticklocs())]
        assert has_scale
        assert any(axis.get_label_text().strip() for axis in has_scale)
    if name not in ("forest", "setups"):
        assert ax.get_xlabel()
        assert ax.get_ylabel()


@every_figure
def test_draws_into_given_axes(name: str) -> None:
    ax = Figure().subplots()
    assert MAKERS[name](ax) is ax
    assert ax in ax.figure.axes


@every_figure
def test_svg_is_equal_text_with_unique_ids(name: str) -> None:
    first, again = figures.to_svg(MAKERS[name](None)), figures.to_svg(MAKERS[name](None))
    other = figures.to_svg(MAKERS[name](None), name="other")
    assert first == again
    assert len(set(ids(first + other))) == len(ids(first + other))
    root = ElementTree.fromstring(first)
    assert root.get("role") == "img"
    assert root.find("{*}title").text.strip()
    assert root.get("viewBox")
    assert not {"width", "height"} & set(root.attrib)
    assert first.startswith("<svg")
    assert "<style" not in first
    assert "metadata" not in first
    assert "<text" in first
    references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', first)
    assert {a or b for a, b in references} <= set(ids(first))


@every_figure
def test_svg_holds_nothing_that_nobody_sees(name: str) -> None:
    svg = figures.to_svg(MAKERS[name](None), name="n")
    used = set(re.findall(r'(?:url\(#|href="#|labelledby=")([^")]+)', svg))
    assert set(ids(svg)) <= used
    places = " ".join(re.findall(r'\s(?:d|x|y)="([^"]*)"', svg))
    assert re.search(r"\d\.\d\d\b", places)
    assert not re.search(r"\d\.\d{3}", places)
    assert "rotate(-0" not in svg
    assert "Helvetica" not in svg


def test_pyplot_is_not_touched() -> None:
    of_surface()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_learning_rate_scale_follows_the_data() -> None:
    assert figures.learning_rate([0, 1], {"R": [0.1, 1e-6]}).get_yscale() == "log"
    assert figures.learning_rate([0, 1], {"R": [0.1, 0.05]}).get_yscale() == "linear"
    assert figures.learning_rate([0, 1], {"warmup": [0.0, 0.1]}).get_yscale() == "linear"
    assert figures.learning_rate([0, 1], {"R": [0.1, 0.05]}, log=True).get_yscale() == "log"


def test_mean_ends_where_a_seed_ends() -> None:
    ax = figures.accuracy({"R": range(4)}, {"R": {1: [0.1, 0.2, 0.3, 0.4], 2: [0.3, 0.4]}})
    mean = ax.get_lines()[-1].get_ydata()
    np.testing.assert_allclose(mean, [20, 30, np.nan, np.nan])


def crosses(ax: Axes) -> dict[str, list[tuple[float, float]]]:
    """Positions of the crosses by colour; the one of the legend has no position."""
    marks = [line for line in ax.get_lines() if line.get_marker() == "x" and len(line.get_xdata())]
    return {mark.get_color(): [tuple(map(float, each)) for each in mark.get_xydata()] for mark in marks}


def names(ax: Axes) -> list[str]:
    legend = ax.get_legend() or ax.figure.legends[0]
    return [text.get_text() for text in legend.get_texts()]


def test_diverged_runs_end_in_a_cross_at_chance() -> None:
    diverged = {"R": {100: 0.5, 101: 3.25}}
    ax = figures.accuracy({"K": range(20), "R": range(20)}, {"K": lines(), "R": lines()}, diverged=diverged, chance=0.1)
    assert crosses(ax) == {look(1).color: [(0.5, 10.0), (3.25, 10.0)]}
    assert names(ax) == ["K", "R", "chance", "diverged"]
    assert names(figures.accuracy({"K": range(20)}, {"K": lines()}, diverged={"K": {}}, chance=0.1)) == ["K", "chance"]


def test_sharpness_keeps_to_the_eigenvalues_and_lowest_thresholds() -> None:
    ax = of_sharpness()
    low, high = ax.get_ylim()
    assert low < 1 < 100 < high  # a rate near 0 bears 1e9, far above
    assert 1e6 < high < 1e7  # the lowest of W's thresholds stands in the panel
    mean = ax.get_lines()[2]
    np.testing.assert_allclose(mean.get_ydata(), [6, np.nan, np.nan])  # geometric; where a seed is missing it ends
    dashed = [line for line in ax.get_lines() if len(line.get_xdata()) and line.get_linewidth() == 1.1]
    np.testing.assert_array_equal(dashed[1].get_ydata(), [np.nan, 1e9, 1e6])
    assert {at for marks in crosses(ax).values() for at, _ in marks} == {1.5, 2.0}
    assert names(ax) == ["N", "W", "stability threshold", "diverged"]


def test_shares_of_blocks_are_stacked_from_shallow_to_deep() -> None:
    ax = figures.block_shares([0, 1, 2], BLOCKS)
    tops = [max(y for x, y in path.vertices if x == 2) for path in (each.get_paths()[-1] for each in ax.collections)]
    assert tops == [0.5, 1.0]
    assert {len(each.get_paths()) for each in ax.collections} == {2}  # what is not known leaves a gap in all bands
    assert names(ax) == ["block 1", "head"]


def test_updates_of_arms_side_by_side_share_scale_and_legend() -> None:
    left, right = figures.panels(columns=2, share_y=True)
    figures.updates([0, 1], {"block 1": [1e-3, 0.0], "head": [[0.1, 1.0], [0.4, 1.0]]}, left, title="N")
    figures.updates([0, 1], {"block 1": [1e-5, 1e-4], "head": [1.0, 1.0]}, right, title="W", legend=False)
    assert left.get_ylim() == right.get_ylim()
    assert [ax.yaxis.label.get_visible() for ax in (left, right)] == [True, False]
    assert len(left.figure.legends) == 1
    assert names(left) == ["block 1", "head"]
    first, *_, last = left.get_lines()
    np.testing.assert_allclose(first.get_ydata(), [1e-3, np.nan])
    np.testing.assert_allclose(last.get_ydata(), [0.2, 1.0])


def test_shares_beyond_the_edge_are_triangles_with_the_means_number() -> None:
    ax = of_causes()
    drawn = {sign: [] for sign in "os<>"}
    for line in ax.get_lines():
        if line.get_marker() in drawn:
            drawn[line.get_marker()] += [float(x) for x in line.get_xdata()]
    # Seeds first, then means, of warmed up; NaN is nowhere.
    assert drawn["o"] == [0.1, 0.9, 0.4, 0.6, 0.5]
    assert drawn["s"] == [0.0, 0.2, 0.0, 0.1, 0.0]
    assert drawn["<"] == pytest.approx([-0.54] * 5)  # both seeds, both ends of the interval, the mean
    assert drawn[">"] == pytest.approx([1.54] * 4)  # a seed, the upper end, the mean; and an infinite seed
    assert {text.get_text() for text in ax.texts} == {"1.9", "\N{MINUS SIGN}1.5"}
    assert names(ax) == ["warmed up", "frozen", "beyond the edge"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["block 1", "head", "random set"]
    low, high = ax.get_ylim()
    assert low > high  # shallow above
    inside = figures.causal_map(["a"], {"w": [[0.5]]}, {"w": [[0.5, 0.4, 0.6]]})
    assert names(inside) == ["w"]


def test_phases_count_diverged_runs_and_leave_empty_cells_blank() -> None:
    ax = of_phases()
    assert {text.get_position(): text.get_text() for text in ax.texts} == {
        (0.5, 0.5): "85", (1.5, 0.5): "30\n2/3 ✕", (1.5, 1.5): "10\n3/3 ✕"
    }  # fmt: skip
    (mesh,) = (each for each in ax.collections if each.get_array() is not None)
    np.testing.assert_array_equal(mesh.get_array().mask, [[False, False], [True, False]])
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0, 100)
    assert ax.get_ylim() == (0, 2)  # no warmup below


ONE = {"w": [[0.5]]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.accuracy({"R": [0]}, {"R": {1: [0.5]}}, diverged={"R": {1: 0}}), "its accuracy by chance="),
        (lambda: figures.accuracy({"R": [0]}, {"R": {1: [0.5]}}, diverged={"K": {}}, chance=0.1), "K diverged, but"),
        (lambda: figures.accuracy({"R": [0]}, {"R": {}}), "R has no line"),
        (lambda: figures.accuracy({"R": [0]}, {"R": {1: [0.5, 0.6]}}), "R has 2 values at 1 positions"),
        (lambda: figures.sharpness_trace({}, {}, {}), "at least one arm"),
        (lambda: figures.sharpness_trace({"N": [0]}, {"N": {1: [2.0]}}, {}), "N needs its steps and thresholds"),
        (lambda: figures.sharpness_trace({"N": [0]}, {"N": {1: [2.0]}}, {"N": [1, 2]}), "N has 1 steps, 2 thresholds"),
        (lambda: figures.block_shares([0], {}), "at least one block"),
        (lambda: figures.block_shares([0], {"b": [0.1, 0.2]}), "b has 2 shares at 1 steps"),
        (lambda: figures.updates([0], {}), "at least one block"),
        (lambda: figures.causal_map([], {}, {}), "at least one row"),
        (lambda: figures.causal_map(["a"], ONE, {}), "means_by_way has no 'w'"),
        (lambda: figures.causal_map(["a", "b"], ONE, ONE), r"w: 2 rows need shares \[2, seeds\] and means \[2, 3\]"),
        (lambda: figures.phase_diagram([], [0], [], []), "at least one learning rate"),
        (lambda: figures.phase_diagram([0.1], [0], [[0.5]], [[False]]), r"\[1, 1, runs\]; these have \(1, 1\)"),
        (lambda: figures.phase_diagram([0.1], [0], [[[np.nan]]], [[[True]]]), "that diverged has no accuracy"),
    ],
)
def test_what_cannot_be_drawn_names_the_repair(call: Callable[[], Axes], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


@every_figure
@pytest.mark.parametrize("width", [5.0, 3.4])
def test_there_is_room_for_every_figure(name: str, width: float) -> None:
    (ax,) = figures.panels(width=width, height=4.0)
    MAKERS[name](ax)
    ax.figure.draw_without_rendering()  # the layout warns, and so fails, where it leaves no room
    assert ax.get_window_extent().height > 0.3 * ax.figure.bbox.height


def test_stacked_axes_label_the_epoch_once() -> None:
    top, bottom = figures.panels(2)
    figures.learning_rate([0, 1], {"R": [0.1, 0.05]}, top)
    figures.norms([0, 1], {"R": [1, 2]}, ax=bottom)
    assert not top.xaxis.label.get_visible()
    assert bottom.xaxis.label.get_visible()


def test_maps_side_by_side_have_one_bar_and_name_columns_once() -> None:
    axes = figures.panels(2, columns=2)
    for number, ax in enumerate(axes):
        figures.heat_map(np.eye(8), "abcdefgh", "abcdefgh", ax=ax, bar=bool(number % 2))
    assert len(axes[0].figure.axes) == 4 + 2
    assert [ax.xaxis.label.get_visible() for ax in axes] == [False, False, True, True]
    alone = figures.heat_map(np.eye(8), "abcdefgh", "abcdefgh")
    sizes = {float(text.get_fontsize()) for text in axes[0].texts}
    assert max(sizes) < min(float(text.get_fontsize()) for text in alone.texts)  # half the width is for each


def test_profile_over_layers_is_held_against_bands_and_chance() -> None:
    bands = {"two seeds": ([0.5, np.nan], [0.6, np.nan]), "pair": ([0.4, 0.2], [0.4, 0.2])}
    ax = figures.layer_profile(["a", "b"], {"R": lines(2)}, chance={"R": [0.1, 0.1]}, references=bands)
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["two seeds", "pair", "R", "chance"]
    two, _, pair, _ = ax.collections
    assert (two.get_hatch(), pair.get_hatch()) == (None, "////")
    low, high = ax.get_lines()[2:4]  # a band of one value is seen by its edges, which lie on one another
    assert (list(low.get_ydata()), list(low.get_ydata())) == ([0.4, 0.2], list(high.get_ydata()))


def test_matrix_leaves_diagonal_and_unknown_blank() -> None:
    ax = figures.matrix([[9, 1.25, np.nan], [1, 9, 2], [3, 4, 9]], ["a", "b", "c"])
    assert {text.get_text() for text in ax.texts} == {"1.25", "1.00", "2.00", "3.00", "4.00"}


def test_far_trajectory_is_told_from_the_plane() -> None:
    ax = of_surface()
    area = ax.collections[-4].get_sizes()  # the run; three entries of the legend follow
    assert area[1] > 8 * area[0]
    texts = {text.get_text() for text in ax.texts}
    assert {"w35", "far (7.5 off)", "6.5 off"} <= texts


@pytest.mark.parametrize("z", [np.full((3, 4), 2.0), np.full((3, 4), np.nan), np.eye(3, 4)])
def test_surface_of_odd_fields(z: np.ndarray) -> None:
    assert figures.to_svg(figures.surface(range(4), range(3), z))


def test_forest_tolerates_missing_numbers() -> None:
    missing = {"name": "E2", "values": {100: None, 101: float("nan")}, "low": None, "answer": "open"}
    ax = figures.forest([{**PART, "answer": "no", "unit": "nats"}, missing])
    assert [row.get_title(loc="left") for row in ax.child_axes] == ["▼ E1: no", "◇ E2: open"]
    assert figures.to_svg(figures.forest([]))


def test_forest_rows_of_one_unit_share_their_range() -> None:
    wide = {**PART, "name": "E2", "high": 3.0, "answer": "open", "unit": "nats"}
    other = {**PART, "name": "E3", "answer": "yes", "unit": "points"}
    rows = figures.forest([{**PART, "answer": "yes", "unit": "nats"}, wide, other]).child_axes
    assert rows[0].get_xlim() == rows[1].get_xlim() != rows[2].get_xlim()


def test_set_ups_stand_below_one_another_in_every_part() -> None:
    yes, gone = {**PART, "answer": "yes", "unit": "nats"}, {"values": {100: None}, "low": None, "answer": "left out"}
    far = {**PART, "high": 3.0, "answer": "no", "unit": "nats", "contrast": "loss R - K"}
    ax = figures.setups({"E1": {"A": yes, "B": gone}, "E2": {"A": far}})
    first, second = ax.child_axes
    assert [label.get_text()[0] for label in first.get_yticklabels()] == ["A", "B"]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # A on top
    assert [second.get_title(loc="left"), second.get_xlabel()] == ["E2 loss R \N{MINUS SIGN} K", "nats"]
    assert first.get_xlim() == second.get_xlim()
    assert first.get_position().y0 > second.get_position().y1
    assert figures.to_svg(figures.setups({}))


def test_hostile_names_stay_text() -> None:
    ax = figures.norms([0, 1], {HOSTILE: [1, 2], HOSTILE + "2": [2, 3]}, HOSTILE)
    figures.matrix([[0, 1], [1, 0]], [HOSTILE, "b"], HOSTILE, HOSTILE)
    svg = figures.to_svg(ax, title=HOSTILE, name=HOSTILE)
    assert "<script" not in svg
    root = ElementTree.fromstring(svg)
    shown = ["".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text")]
    assert any("$x^2$" in text for text in shown)


def test_looks_differ() -> None:
    assert len({look(index)[:2] for index in range(28)}) == 28
    assert len({by_depth(index, 8).color for index in range(8)}) == 8
    assert by_depth(0, 1)[1:] == look(0)[1:]

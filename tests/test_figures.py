import re
import sys
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from closerlook import figures
from closerlook.figures.style import look

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


MAKERS: dict[str, Callable[[Axes | None], Axes]] = {
    "learning_rate": lambda ax=None: figures.learning_rate([0, 1, 2], {"R": [0.1, 0.05, 1e-6]}, ax, floors=[2]),
    "accuracy": lambda ax=None: figures.accuracy({"R": range(20), "K": range(20)}, {"R": lines(), "K": lines(7)}, ax),
    "norms": lambda ax=None: figures.norms(range(20), {"R": list(lines().values()), "K": range(20)}, ax=ax),
    "path": lambda ax=None: figures.path(np.linspace(0, 1, 20), lines(), lines(), ax=ax),
    "matrix": lambda ax=None: figures.matrix([[0, 1.5], [-1.5, 0]], ["a", "b"], "barrier", ax=ax, groups=["s", "t"]),
    "surface": of_surface,
    "forest": lambda ax=None: figures.forest([{**PART, "answer": "yes", "unit": "nats"}], ax),
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
    if name != "forest":
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

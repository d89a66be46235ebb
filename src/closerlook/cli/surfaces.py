"""Surfaces for people: names that fit into a figure, a few lines of text."""

from dataclasses import replace
from itertools import count

from closerlook.cli.answer import columns
from closerlook.cli.profiles import splits_of
from closerlook.errors import UsageError
from closerlook.figures.interactive import plotly_graphs
from closerlook.figures.style import letter
from closerlook.landscape import Surface
from closerlook.landscape.directions import DISTANCES

_LONGEST = 12  # letters of a name beside a mark


def check_grid(grid: tuple[int, int], interactive: bool) -> None:
    """Refuse what would fail when everything is read."""
    if min(grid) < 2:
        raise UsageError(f"a grid has at least two columns and two rows, not {grid[0]} and {grid[1]}")
    if interactive:
        plotly_graphs()


def lettered(surface: Surface) -> Surface:
    """The surface with its marks called A, B, C, ... where their names are too long for a figure."""
    if max(map(len, surface.marks)) <= _LONGEST:
        return surface
    return replace(surface, marks=dict(zip(map(letter, count()), surface.marks.values(), strict=False)))


def short(surface: Surface) -> Surface:
    """The surface with its ends called first and last where their names are too long for a figure."""
    ends = {surface.path[0]: "first", surface.path[-1]: "last"}
    if max(map(len, ends)) <= _LONGEST:
        return surface
    marks = {ends.get(name, name): mark for name, mark in surface.marks.items()}
    return replace(surface, marks=marks, path=tuple(ends.get(name, name) for name in surface.path))


def text(surface: Surface, metric: str) -> str:
    """The range of a metric, and where the checkpoints lie."""
    marks = [
        (letter(place), name, *(round(x, 4) for x in (mark.x, mark.y, mark.distance)))
        for place, (name, mark) in enumerate(surface.marks.items())
    ]
    lie_at = columns(("", "checkpoint", "x", "y", "distance off the plane"), marks)
    counted = "" if surface.axes == DISTANCES else f"x: {surface.axes[0]}; y: {surface.axes[1]}{_one(surface)}.\n"
    head, _, grid = ranges(surface, metric).rpartition("\n\n")
    return f"{head}\n\n{lie_at}\n\n{counted}{grid}"


def ranges(surface: Surface, metric: str) -> str:
    """The range of a metric, and how it was read."""
    read = [(split, surface.n[split], surface.values[f"{split}_{metric}"]) for split in splits_of(surface)]
    rows = [(split, n, float(values.min()), float(values.max())) for split, n, values in read]
    read_on = columns(("read on", "images", f"lowest {metric}", "highest"), rows)
    read_cells = f"{int(surface.was_read.sum())} of {surface.was_read.size} cells read"
    grid = f"{len(surface.x)} x {len(surface.y)} grid, {read_cells}, weights {surface.dtype}"
    return f"{read_on}\n\nDistances are L2 norms of weights; {grid}."


def _one(surface: Surface) -> str:
    return f" (one is a distance of {surface.unit:.4g})" if surface.unit != 1 else ""

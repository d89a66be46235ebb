"""A report as data, and its rendering into one HTML file that needs nothing else."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from closerlook.errors import UsageError
from closerlook.figures import forest, to_svg
from closerlook.files import write_bytes
from closerlook.report import words

_ID = re.compile(r'\sid="([^"]*)"')


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption; `svg` comes from :func:`closerlook.figures.to_svg` and is not escaped."""

    id: str
    title: str
    caption: str
    svg: str

    def __post_init__(self) -> None:
        if not self.svg.startswith("<svg"):
            raise UsageError(f"figure {self.id!r} holds no <svg> element; make it with closerlook.figures.to_svg")


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first cell of a row names the row, numbers are shown to four digits."""

    id: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise UsageError(f"table {self.id!r} has a row that does not fit its {len(self.columns)} columns")


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Parameters
    ----------
    title, question
        What was studied, in a line each.
    verdict
        The verdict as a dictionary (claim, rule, version, answer, words, parts, controls, ...), or None for a report
        of runs that nothing was judged about.
    figures, tables
        In the order in which they are shown.
    settings
        Rows of name, value and how the value was chosen.
    seeds
        The seeds that the numbers come from.
    environment
        Versions and hardware by name, nested once at most.
    costs
        Rows of step and seconds.
    command
        What to type to get the same numbers again.
    notes
        Remarks, a paragraph each.
    """

    title: str
    question: str
    verdict: Mapping[str, Any] | None = None
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    settings: tuple[tuple[str, Any, str], ...] = ()
    seeds: tuple[int | str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    costs: tuple[tuple[str, float], ...] = ()
    command: str = ""
    notes: tuple[str, ...] = ()


def render(report: Report) -> str:
    """Return the report as one HTML document without scripts or references to other files.

    Reports that differ in environment and costs only differ in the sections with these ids only.

    Raises
    ------
    UsageError
        Two figures or tables have the same id, or two drawings share ids inside.

    Examples
    --------
    >>> render(Report("Restarts", "Do restarts escape?"))[:15]
    '<!doctype html>'
    """
    return page(report.title, content(report))


def page(title: str, content: str) -> str:
    """One HTML document around what stands in it."""
    return fill("page.html", title=title, content=Markup(content))


def content(report: Report, folded: bool = False) -> str:
    """What a report shows, without the document around it; `folded` hides the longer sections behind their names."""
    parts = words.parts_of(report.verdict)
    drawing = to_svg(forest(parts), title="Parts of the verdict", name="verdict-parts") if parts else ""
    _refuse_repeated_ids([*(figure.svg for figure in report.figures), drawing])
    _refuse_repeats([f"figure {figure.id}" for figure in report.figures] + [f"table {t.id}" for t in report.tables])
    return fill(
        "content.html", report=report, folded=folded, parts=parts, seeds=words.seeds_of(parts), drawing=Markup(drawing),
        controls=words.readings_of(report.verdict, "controls"),
        illustrations=words.readings_of(report.verdict, "illustrations"),
    )  # fmt: skip


def fill(template: str, **values: Any) -> str:
    """A template with its values, all of them escaped."""
    return _environment().get_template(template).render(**values)


def write(report: Report, path: str | Path) -> Path:
    """Write the report, atomically, and return its path."""
    write_bytes(path, render(report).encode())
    return Path(path)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("closerlook.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= words.FILTERS
    environment.tests["measured"] = words.is_number
    return environment


def _refuse_repeated_ids(drawings: list[str]) -> None:
    _refuse_repeats([f"drawing part {name}" for drawing in drawings for name in _ID.findall(drawing)])


def _refuse_repeats(names: list[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(f"{repeated[0]!r} occurs twice in one report; give each figure and table its own name")

"""Several reports on one page: a table of the answers first, then every report as a section of its own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from closerlook.errors import UsageError
from closerlook.files import write_bytes
from closerlook.report import html

_TAG = re.compile(r"<[^<>]*>")  # what is shown and what stands in quotes is escaped: no < or > but those of tags
_NAMED = re.compile(r'( id="| aria-labelledby="| href="#|url\(#)')
_HEADING = re.compile(r"^(</?h)([1-5])\b")


@dataclass(frozen=True)
class Section:
    """One report of a collection.

    Parameters
    ----------
    name
        Where links of the page lead; the ids of the section begin with it.
    report
        What the section shows.
    grounds
        The questions that its verdict hangs on, as :class:`closerlook.evidence.deciding.Ground` gives them; the table
        at the top shows them.
    """

    name: str
    report: html.Report
    grounds: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Collection:
    """Everything that a page of several reports shows.

    Parameters
    ----------
    title, question
        What the page is about, in a line each.
    sections
        The reports, in the order in which they are shown.
    missing
        Rows of what should stand here and why it does not.
    environment, costs, command
        As in :class:`closerlook.report.Report`, for all sections together.
    """

    title: str
    question: str
    sections: tuple[Section, ...]
    missing: tuple[tuple[str, str], ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    costs: tuple[tuple[str, float], ...] = ()
    command: str = ""


def render(collection: Collection) -> str:
    """Return the collection as one HTML document without scripts or references to other files.

    Raises
    ------
    UsageError
        Two sections have one name, or two figures or tables of a section have one id.

    Examples
    --------
    >>> page = render(Collection("Both", "What do they say?", (Section("a", html.Report("A", "Is it so?")),)))
    >>> 'id="a-verdict"' in page
    True
    """
    names = [section.name for section in collection.sections]
    if len(set(names)) < len(names):
        raise UsageError(f"two of the sections {', '.join(names)} have one name; give each its own")
    sections = [(section, Markup(_shown(section, collection))) for section in collection.sections]
    return html.page(collection.title, html.fill("collection.html", collection=collection, sections=sections))


def _shown(section: Section, collection: Collection) -> str:
    """A section's content; where it ran is told once, where that is the same for all."""
    report = section.report
    if report.environment == collection.environment:
        report = replace(report, environment={})
    return nested(html.content(report, folded=True), section.name)


def write(collection: Collection, path: str | Path) -> Path:
    """Write the page, atomically, and return its path."""
    write_bytes(path, render(collection).encode())
    return Path(path)


def nested(content: str, name: str) -> str:
    """HTML as a part of another page: every id and reference begins with `name`, headings stand a level deeper.

    Examples
    --------
    >>> nested('<h2 id="cost">id="kept"</h2><a href="#cost">', "b")
    '<h3 id="b-cost">id="kept"</h3><a href="#b-cost">'
    """
    return _TAG.sub(lambda tag: _NAMED.sub(rf"\1{name}-", _deeper(tag[0])), content)


def _deeper(tag: str) -> str:
    return _HEADING.sub(lambda found: f"{found[1]}{int(found[2]) + 1}", tag)

"""A figure as SVG text: equal figures give equal bytes, and several fit into one HTML page."""

import hashlib
import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from closerlook.figures.style import printable

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_LONG = re.compile(r"-?\d+\.\d{3,}")
_PLACES = ("d", "x", "y", "points")  # in points of 1/72 inch
# Text that stays text needs no list of every font that would do.
_SAVED: dict[Any, Any] = {"svg.hashsalt": "closerlook", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}


def to_svg(drawing: Figure | Axes, title: str = "", name: str = "") -> str:
    """Return a figure as one ``<svg>`` element for a page or a file.

    Text stays text. There is no prolog, no date and no style sheet that would reach other elements of the page; all
    ids carry a prefix, because matplotlib gives the parts of every figure the same ids.

    Parameters
    ----------
    drawing
        A matplotlib figure, or any of its axes.
    title
        What a screen reader says; by default the first title or label found in the figure.
    name
        Prefix of all ids; by default made from the content, so that different figures get different ids.

    Examples
    --------
    >>> from closerlook.figures import norms
    >>> to_svg(norms([0, 1], {"R": [1.0, 2.0]}), name="n")[:43]
    '<svg viewBox="0 0 360 237.6" version="1.1" '
    """
    figure = drawing.figure.canvas.figure if isinstance(drawing, Axes) else drawing
    buffer = io.StringIO()
    with matplotlib.rc_context(_SAVED):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _strip(root)
    _shorten(root)
    prefix = _UNSAFE.sub("-", name) or "f" + hashlib.sha256(buffer.getvalue().encode()).hexdigest()[:10]
    _rename(root, prefix)
    _describe(root, prefix, title or _title_of(figure))
    return ElementTree.tostring(root, encoding="unicode")


def _strip(root: ElementTree.Element) -> None:
    """Drop namespaces, metadata and the style sheet: inside a page it would apply to every other drawing."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in [key for key in element.attrib if key.startswith("{")]:
            element.set(key.rpartition("}")[2], element.attrib.pop(key))
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in {"metadata", "style"}]:
            parent.remove(child)


def _shorten(root: ElementTree.Element) -> None:
    """Drop what nobody sees, which is half of a file: digits below 0.01 points, turns by 0 degrees, unused names."""
    used = {name for element in root.iter() for key, value in element.items() for name in _used(key, value)}
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        for key in _PLACES:
            if key in element.attrib:
                element.set(key, _LONG.sub(lambda number: f"{float(number[0]):.2f}", element.attrib[key]))
        if element.tail and not element.tail.strip():
            element.tail = "\n"


def _used(key: str, value: str) -> list[str]:
    return [value[1:]] if key == "href" and value.startswith("#") else _REFERENCE.findall(value)


def _rename(root: ElementTree.Element, prefix: str) -> None:
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{prefix}-{value}")
            elif key == "href" and value.startswith("#"):
                element.set(key, f"#{prefix}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))


def _describe(root: ElementTree.Element, prefix: str, title: str) -> None:
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title")
    # As wide as its place, but neither so small that text gets unreadable nor blown up; the joins are matplotlib's.
    root.set(
        "style",
        f"width:100%;min-width:{0.9 * width:.0f}px;max-width:{1.7 * width:.0f}px;"
        "stroke-linejoin:round;stroke-linecap:butt",
    )
    element = ElementTree.Element("title", {"id": f"{prefix}-title"})
    element.text = printable(title)
    root.insert(0, element)


def _title_of(figure: Figure) -> str:
    labels = [figure.get_suptitle()]
    for ax in figure.axes:
        labels += [ax.get_title(loc="left"), ax.get_title(), f"{ax.get_ylabel()} against {ax.get_xlabel()}"]
    return next((label for label in labels if label.strip()), "figure")

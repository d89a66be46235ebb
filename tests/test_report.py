import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from closerlook import figures
from closerlook.errors import UsageError
from closerlook.report import Figure, Report, Table, render, words, write

HOSTILE = '<script>alert("x")</script><img src=x onerror="y"> & {{ 7 * 7 }}'
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects ids, references and text, and fails on tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def drawing(name: str = "") -> str:
    return figures.to_svg(figures.norms([0, 1], {f"arm {name}": [1, 2]}), name=name)


def part(**changes: Any) -> dict[str, Any]:
    return {
        "name": "E1", "question": "Do restarts separate more?", "unit": "nats", "values": {"100": 0.31, "101": -0.42},
        "effect": 0.363, "low": 0.27, "high": 0.456, "level": 0.9, "margin": 0.1, "answer": "yes", "n": 2,
        "smallest_decidable": 0.193, "share_above": 0.5,
    } | changes  # fmt: skip


VERDICT: dict[str, Any] = {
    "claim": "the quoted reasons are not evidenced", "rule": "restarts", "version": 1, "answer": "not decided",
    "words": "Not decided: E2 is open.", "provisional": True, "setting": "demonstration",
    "parts": [part(), part(name="E2", answer="open")], "notes": ["E4 is exploratory."],
    "illustrations": [{"name": "bend", "says": "the bend is low", "values": {"100": 0.07}, "passed": None}],
    "controls": [
        {"name": "positive", "question": "seen?", "passed": True, "values": {"100": 1.8}, "threshold": 0.2},
        {"name": "null", "passed": False},
    ],
}  # fmt: skip


def report(**changes: Any) -> Report:
    whole = Report(
        "Restarts", "Do restarts escape?", VERDICT,
        figures=(Figure("a", "First", "as arXiv 1810.13243", drawing()), Figure("b", "Second", "", drawing("b"))),
        tables=(Table("t", "Accuracy", ("arm", "mean"), (("R", 0.71234), ("K", None))),),
        settings=(("learning rate", 0.05, "tuned"),), seeds=(100, 101), notes=("A note.",),
        environment={"torch": "2.13", "cpu": {"n": 2}}, costs=(("train", 71.2), ("connect", 3600.0)),
        command="closerlook study restarts --scale small",
    )  # fmt: skip
    return dataclasses.replace(whole, **changes)


def test_page_is_whole_and_alone() -> None:
    page = render(report())
    reader = read(page)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"verdict", "environment", "cost", "figure-a", "table-t"} <= set(ids)
    tags = {tag for tag, _ in reader.tags}
    assert {"main", "h1", "h2", "figcaption", "caption", "svg"} <= tags
    assert not {"script", "link", "img", "iframe"} & tags
    assert dict(reader.tags)["html"] == {"lang": "en"}
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in reader.tags if tag == "th")
    references = [value for _, attributes in reader.tags for key, value in attributes.items() if key in {"src", "href"}]
    assert all(value.startswith("#") for value in references if value)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_verdict_comes_first_in_words_and_shape() -> None:
    text = " ".join("".join(read(render(report())).text).split())
    order = ["? not decided", "provisional: fewer", "Not decided: E2", "chosen because the effect shows there", "▲ yes",
             "0.27 to 0.456 (90 %)", "1, – of 2", "seed 100", "−0.42", "✓ passed", "✕ failed", "Parts of the verdict.",
             "only shown", "E4 is exploratory", "as arXiv 1810.13243", "0.7123", "A note", "tuned", "n = 2",
             "--scale small", "cpu: n", "1 h 01 min"]  # fmt: skip
    places = [text.find(piece) for piece in order]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("answer", ["supported", "contradicted", "not decided", "numbers only"])
def test_every_answer_has_its_badge(answer: str) -> None:
    page = render(report(verdict={"answer": answer}))
    assert f'class="verdict {answer.replace(" ", "-")}"' in page
    assert f"</span> {answer}</span>" in page


def test_hostile_text_is_escaped_everywhere() -> None:
    verdict = {key: HOSTILE if isinstance(value, str) else value for key, value in VERDICT.items()}
    named = part(name=HOSTILE, question=HOSTILE, unit=HOSTILE, answer=HOSTILE, values={HOSTILE: 1.0})
    verdict |= {"notes": [HOSTILE], "parts": [named], "controls": [{"name": HOSTILE, "values": HOSTILE}]}
    page = render(report(
        title=HOSTILE, question=HOSTILE, verdict=verdict, figures=(Figure('a"><b>', HOSTILE, HOSTILE, drawing()),),
        tables=(Table('t"><b>', HOSTILE, (HOSTILE,), ((HOSTILE,),), HOSTILE),), settings=((HOSTILE,) * 3,),
        environment={HOSTILE: {HOSTILE: HOSTILE}}, costs=((HOSTILE, 1.0),), command=HOSTILE, notes=(HOSTILE,),
    ))  # fmt: skip
    tags = {tag for tag, _ in read(page).tags}
    assert not {"script", "img", "b"} & tags
    assert "{{ 7 * 7 }}" in page


def test_only_cost_and_environment_differ() -> None:
    def rest(page: str) -> str:
        return re.sub(r'<section id="(environment|cost)">.*?</section>', "", page, flags=re.DOTALL)

    first, other = render(report()), render(report(environment={"torch": "9"}, costs=(("train", 1.0),)))
    assert first == render(report())
    assert first != other
    assert rest(first) == rest(other)


def test_report_without_verdict() -> None:
    text = "".join(read(render(Report("Runs", "What do they look like?"))).text)
    assert "Nothing was judged" in text


def test_parts_may_lack_numbers_or_have_two_intervals() -> None:
    bare = {"name": "E1"}
    narrow = {"level": 0.9, "low": 0.1, "high": 0.2, "answer": "yes"}
    wide = {"level": 0.95, "low": 0, "high": 0.3, "answer": "open"}
    two = part(name="E3", values={"9-10": 1.0, "10-11": None}, intervals=[narrow, wide])
    page = render(report(verdict={"answer": "numbers only", "parts": [bare, two]}))
    assert "0.1 to 0.2 (90 %, yes)<br>0 to 0.3 (95 %, open)" in page
    assert page.index("seed 9-10") < page.index("seed 10-11")


def test_refuses_what_would_not_fit_together() -> None:
    figure = Figure("a", "First", "", drawing("a"))
    with pytest.raises(UsageError, match="figure a"):
        render(report(figures=(figure, dataclasses.replace(figure, svg=drawing("z")))))
    with pytest.raises(UsageError, match="a-"):
        render(report(figures=(figure, dataclasses.replace(figure, id="other"))))
    with pytest.raises(UsageError, match="to_svg"):
        Figure("a", "First", "", HOSTILE)
    with pytest.raises(UsageError, match="2 columns"):
        Table("t", "Accuracy", ("a", "b"), (("only one",),))


def test_write_replaces_the_file(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report.html"
    assert write(report(), target) == target
    assert target.read_text(encoding="utf-8") == render(report())
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_values_read_well() -> None:
    assert words.shown(float("nan")) == "–"
    assert words.shown([1, 0.25, None]) == "1, 0.25, –"
    assert words.shown({"100": 0.5}) == "100: 0.5"
    assert words.duration(59.97) == "1 min 00 s"

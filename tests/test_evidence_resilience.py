"""The resilience rule, branch by branch: the yardstick, six modes, the modes that did not train, and the controls."""

import csv
import json
import random
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from closerlook.cli import main
from closerlook.cli.cards import card
from closerlook.errors import UsageError
from closerlook.evidence import RULES, Admission, Part, Rule, Verdict, all_of, any_of, verdict
from closerlook.evidence.deciding import deciding
from closerlook.evidence.paired import Answer
from closerlook.report import Report, render

CLAIM = RULES["resilience"].claim
MODES = tuple("ABCDEF")
SCATTER = (0.001, 0.0, 0.002, 0.003, 0.0005)  # points of one image in a thousand: what closed curves read
HIGH = (0.10, 0.12, 0.11, 0.13, 0.10)
OPEN = (0.0, 0.05, 0.02, 0.04, 0.0)
WEAK = (0.030, 0.028, 0.052, 0.045, 0.025)  # above 2 points at 90 %, not at the level of one of six
Values = Mapping[tuple[str, str], Sequence[float | None]]


def table(changes: Values | None = None, seeds: int = 5) -> list[dict[str, Any]]:
    """A table in which everything is as the claim says; `changes` are the values of an arm and quantity by seed."""
    found: dict[tuple[str, str], Sequence[float | None]] = {
        ("G", "train_error"): (0.02,) * 5, ("G", "self_barrier"): SCATTER, ("G'", "segment_barrier"): (0.3,) * 5,
        ("G'", "curve_barrier"): SCATTER[::-1], ("G'", "train_error"): (0.021,) * 5,
    }  # fmt: skip
    for mode in MODES:
        found |= {
            (mode, "curve_barrier"): SCATTER, (mode, "train_error"): (0.03,) * 5, (mode, "segment_barrier"): (0.4,) * 5,
        }  # fmt: skip
    return [
        {"arm": arm, "seed": 100 + seed, "quantity": quantity, "value": values[seed]}
        for (arm, quantity), values in {**found, **(changes or {})}.items() for seed in range(min(seeds, len(values)))
    ]  # fmt: skip


def judged(changes: Values | None = None, seeds: int = 5, chance: float | None = 0.1) -> Verdict:
    return verdict(table(changes, seeds), "resilience", "tuned", chance)


def answers(found: Verdict) -> dict[str, list[str]]:
    return {each.part.name: [level.answer for level in each.effect.intervals] for each in found.parts}


def untrained(*modes: str, seed: int = 2, error: float | None = 0.09) -> Values:
    """Modes that did not train in one seed."""
    return {(mode, "train_error"): [0.03] * seed + [error] + [0.03] * (4 - seed) for mode in modes}


def curves(values: Sequence[float | None], *modes: str) -> Values:
    return {(mode, "curve_barrier"): values for mode in modes}


@pytest.mark.parametrize("seeds", [3, 5])
def test_curves_that_all_close_support_the_claim(seeds: int) -> None:
    found = judged(seeds=seeds)
    assert (found.answer, found.provisional) == ("supported", seeds == 3)
    assert answers(found)["b(G')"] == ["no"]
    assert answers(found)["D(A)"] == ["no", "no"]
    assert found.words.startswith(f"Supported: {CLAIM}, because the curve to the same recipe again has a barrier")
    assert all(f"(D({mode}))" in found.words for mode in MODES)
    assert "left out" not in found.words


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("mode", MODES)
def test_one_curve_that_stays_open_contradicts(mode: str, seeds: int) -> None:
    found = judged(curves(HIGH, mode), seeds)
    assert found.answer == "contradicted"
    assert answers(found)[f"D({mode})"] == ["yes", "yes"]
    assert found.words.startswith(f"Contradicted: the runs speak against the claim that {CLAIM}, because the curve ")
    assert [ground.name for ground in deciding(found)] == [f"D({mode})"]


def test_one_of_six_has_to_reach_a_higher_level() -> None:
    found = judged(curves(WEAK, "B"))
    levels = [interval.level for interval in found.parts[2].effect.intervals]
    assert levels == pytest.approx([0.9, 1 - 0.1 / 6])
    assert answers(found)["D(B)"] == ["yes", "open"]
    assert found.answer == "not decided"
    assert "(D(B)) at 90 % but not at the 98.3 % that one part alone must reach" in found.words


@pytest.mark.parametrize(
    "changes",
    [
        curves(OPEN, "C"),
        curves((0.05, 0.051, 0.052, 0.05, 0.053), "G'", *MODES),  # as easily as each other: and all of them badly
        curves((0.0, 0.04, 0.01, 0.02, 0.02), "G'"),  # the yardstick is open
        {("D", "curve_barrier"): (*SCATTER[:4], None)},  # a curve that diverged
    ],
)  # fmt: skip
def test_everything_between_is_not_decided(changes: Values) -> None:
    found = judged(changes)
    assert found.answer == "not decided"
    assert found.words.startswith(f"Not decided: these runs do not settle whether {CLAIM}, since ")


def test_of_many_parts_the_sentence_names_in_full_what_stands_against_the_claim() -> None:
    found = judged(curves(OPEN, "C"))
    assert "it is open whether the curve to a network with a linearly falling learning rate is more than" in found.words
    assert "b(G'), D(A), D(B), D(D), D(E), and D(F) are as the claim has it" in found.words
    assert "large batch" not in found.words


def test_an_answer_that_falls_short_of_its_level_is_told_of_many_parts_as_well() -> None:
    # Any one of five suffices, and each is "no" at 90 % only: none is as the claim has it.
    parts = tuple(Part(name, "curve_barrier", name, "G'", 0.02) for name in MODES[:5])
    noes: Mapping[str, Answer] = dict.fromkeys(MODES[:5], "no")
    rule = Rule("own", 1, "it is so", parts, supported=any_of(noes), contradicted=all_of(dict.fromkeys(noes, "yes")))
    weak = [0.04 - value for value in WEAK]
    found = verdict(table(curves(weak, *MODES) | curves((0.0,) * 5, "G'")), rule)
    assert found.answer == "not decided"
    assert found.words.count("at 90 % but not at the 98 % that one part alone must reach") == 5


def test_differences_are_taken_within_the_seed() -> None:
    # Both curves scatter by tens of points over the seeds and by a tenth of a point against each other.
    by_seed = np.array([0.0, 0.3, 0.1, 0.2, 0.05])
    found = judged(curves(list(by_seed), "G'") | curves(list(by_seed + SCATTER), *MODES))
    assert {tuple(told) for name, told in answers(found).items() if name != "b(G')"} == {("no", "no")}
    assert found.answer == "not decided"  # since the yardstick itself is open


def test_equal_barriers_are_open_below_five_seeds() -> None:
    flat = curves((0.0,) * 5, "G'", *MODES)
    three, five = judged(flat, 3), judged(flat)
    assert (three.answer, five.answer) == ("not decided", "supported")
    assert "D(A): all differences are equal, and an outcome that is all or nothing needs 5 seeds; open" in three.notes
    nearly = judged(flat | curves((0.0, 0.0, 0.0005), "G'"), 3)
    assert nearly.answer == "supported"  # one image in two thousand, in one seed, is scatter enough


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({("G'", "segment_barrier"): (0.3, 0.3, 0.3, 0.3, 0.1)}, "runs of one recipe has a barrier above 10 points"),
        ({("G'", "segment_barrier"): (0.3, 0.3, 0.3, 0.3, None)}, "two runs of one recipe has a barrier above 10"),
        ({("G'", "segment_barrier"): (0.3, 0.3, 0.3, 0.3)}, "runs of one recipe has a barrier above 10 points"),
        ({("G", "self_barrier"): (0.0, 0.0, 0.0, 0.02, 0.0)}, "at its last rate, has a barrier below 2 points"),
    ],
)  # fmt: skip
def test_controls_come_first_in_every_seed(changes: Values, says: str) -> None:
    for more in ({}, curves(HIGH, "A"), untrained("A", "B", "C")):
        found = judged({**changes, **more})
        assert found.answer == "not decided"
        assert found.words.startswith("Not decided: the instrument cannot tell here, because the runs do not show ")
        assert says in found.words


@pytest.mark.parametrize("error", [0.09, 0.9, None])
@pytest.mark.parametrize("chance", [0.1, None])
def test_a_mode_that_did_not_train_in_one_seed_is_left_out(error: float | None, chance: float | None) -> None:
    found = judged({**untrained("E", error=error), **curves(HIGH, "E")}, chance=chance)
    assert found.answer == "supported"
    assert answers(found)["D(E)"] == ["left out", "left out"]
    assert "(D(E))" not in found.words
    assert found.words.endswith("; left out: E, which did not train.")
    assert found.admitted is not None
    assert found.admitted.left_out == ("E",)
    value = {0.09: "+0.0700", 0.9: "+0.8800", None: "+0.8800" if chance else "-"}[error]
    note = "E did not train and is left out (train_error less that of G, at most 0.05 in every seed: "
    assert any(each.startswith(f"{note}100: +0.0100, 101: +0.0100, 102: {value}") for each in found.notes)
    part = next(each for each in found.parts if each.part.name == "D(E)")
    assert part.effect.mean == pytest.approx(np.mean(HIGH) - np.mean(SCATTER))  # shown all the same


def test_a_mode_of_which_a_curve_is_missing_too_is_left_out() -> None:
    gone = {**untrained("E", error=None), ("E", "curve_barrier"): (0.0, 0.0, None, 0.0, 0.0)}
    assert judged(gone).answer == "supported"
    assert judged(gone | curves(HIGH, "A")).answer == "contradicted"


def test_five_points_exactly_is_trained() -> None:
    assert answers(judged(untrained("A", error=0.07)))["D(A)"] == ["no", "no"]
    assert answers(judged(untrained("A", error=0.0701)))["D(A)"] == ["left out", "left out"]


def test_levels_stay_those_of_six_modes() -> None:
    found = judged({**untrained("E", "F"), **curves(WEAK, "B")})
    assert answers(found)["D(B)"] == ["yes", "open"]
    assert found.answer == "not decided"
    assert judged({**untrained("E", "F"), **curves(HIGH, "B")}).answer == "contradicted"
    assert "(D(E))" not in found.words


def test_a_part_that_is_left_out_takes_no_part_in_either_verdict() -> None:
    assert judged({**untrained("E", "F"), **curves(HIGH, "E", "F")}).answer == "supported"
    assert judged({**untrained("E", "F"), **curves(OPEN, "A")}).answer == "not decided"


@pytest.mark.parametrize("out", [(), ("F",), ("E", "F"), ("D", "E", "F")])
def test_every_combination_of_answers(out: Sequence[str]) -> None:
    rule = RULES["resilience"]
    for yardstick, *modes in product(("yes", "no", "open"), repeat=len(MODES) + 1 - len(out)):
        told = dict(zip(MODES, [*modes, *["left out"] * len(out)], strict=True))
        found = {("b(G')", 0.9): yardstick} | {
            (f"D({mode})", level): answer for mode, answer in told.items() for level in (0.9, 1 - 0.1 / 6)
        }
        assert rule.decide(found).answer == expected(yardstick, modes), (yardstick, told)


def expected(yardstick: str, modes: Sequence[str]) -> str:
    """The decision in the words of docs/decision_rules.md, written a second time, over the modes that are left."""
    if len(modes) < 4:
        return "not decided"
    return "contradicted" if "yes" in modes else "supported" if {yardstick, *modes} == {"no"} else "not decided"


@pytest.mark.parametrize("values", [SCATTER, HIGH])
def test_fewer_than_four_modes_decide_nothing(values: Sequence[float]) -> None:
    two = judged({**untrained("D", "E"), **curves(values, "A")})
    assert two.answer == ("supported" if values is SCATTER else "contradicted")
    three = judged({**untrained("D", "E", "F", seed=0), **curves(values, "A")})
    assert three.answer == "not decided"
    assert three.words == (
        "Not decided: fewer than 4 of D(A), D(B), D(C), D(D), D(E), D(F) are left, since D, E, and F did not train."
    )
    assert {ground.name for ground in deciding(three)} == set(answers(three))


def test_without_its_yardstick_nothing_is_left() -> None:
    found = judged(untrained("G'"))
    assert found.words.endswith("are left, since G' did not train.")
    assert set(map(tuple, answers(found).values())) == {("left out",), ("left out", "left out")}


def test_a_training_error_that_is_missing_leaves_the_part_open() -> None:
    found = judged({("A", "train_error"): (0.03,) * 4})
    assert (found.answer, answers(found)["D(A)"]) == ("not decided", ["open", "open"])
    assert any(note.startswith("whether A takes part is not known (train_error") for note in found.notes)
    without = [row for row in table() if row["quantity"] != "train_error"]
    assert verdict(without, "resilience").answer == "not decided"
    reference = judged({("G", "train_error"): (0.02, 0.02, 0.02, 0.02, None)}, chance=None)
    assert set(answers(reference)["b(G')"]) == {"open"}


def test_a_reference_that_diverged_decides_nothing() -> None:
    keys = [("G", "train_error"), ("G", "self_barrier"), ("G'", "segment_barrier")]
    keys += [(mode, "curve_barrier") for mode in ("G'", *MODES)]
    found = judged({key: (0.02, 0.01, 0.02, 0.01, None) for key in keys})
    assert found.answer == "not decided"


def test_missing_and_few_values() -> None:
    assert judged(seeds=2).answer == "numbers only"
    gone = judged({("A", "curve_barrier"): (None, *SCATTER[1:])})
    assert (gone.answer, answers(gone)["D(A)"]) == ("not decided", ["open", "open"])
    assert "D(A): arm A, seed 100 has no value of curve_barrier; open" in gone.notes
    lacking = verdict([row for row in table() if row["arm"] != "F"], "resilience")
    assert (lacking.answer, answers(lacking)["D(F)"]) == ("not decided", ["open", "open"])


def test_order_of_rows_does_not_matter() -> None:
    rows = table({**untrained("E"), **curves(WEAK, "B")})
    shuffled = random.Random(0).sample(rows, len(rows))
    assert verdict(shuffled, "resilience").to_dict() == verdict(rows, "resilience").to_dict()


def test_shared_beginnings_and_segments_are_shown_and_never_decide() -> None:
    more: Values = {
        ("A shared", "curve_barrier"): (0.5, 0.6), ("A shared", "segment_barrier"): (0.4,),
        ("G' shared", "curve_barrier"): (0.0,), ("Z", "curve_barrier"): (0.0,),
    }  # fmt: skip
    found = judged(more)
    assert found.answer == "supported"
    shown = {each.name: dict(each.values) for each in found.illustrations}
    assert shown["curve(A shared)"] == {"100": 0.5, "101": 0.6}
    assert {"segment(A shared)", "curve(G' shared)", "segment(F)"} <= set(shown)
    assert [note for note in found.notes if "not used" in note] == ["not used by this rule: curve_barrier of arm Z"]


def test_percents_are_refused() -> None:
    with pytest.raises(UsageError, match="train_error is a fraction: divide percents by 100"):
        judged({("A", "train_error"): (3.0,) * 5})


def test_terminal_report_and_card_tell_who_is_left_out() -> None:
    found = judged({**untrained("E", error=None), **curves(OPEN, "B")})
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    text, page, shown = str(found), render(Report("Resilience", "As easily?", stored)), card("rule", "resilience")
    assert stored["admission"]["arms"][5] == {
        "arm": "E", "standing": "left out",
        "values": {"100": pytest.approx(0.01), "101": pytest.approx(0.01), "102": pytest.approx(0.88),
                   "103": pytest.approx(0.01), "104": pytest.approx(0.01)},
    }  # fmt: skip
    assert {part["name"]: part["answer"] for part in stored["parts"]}["D(E)"] == "left out"
    assert "left out" in next(line for line in text.splitlines() if line.startswith("D(E)"))
    assert "note: E did not train and is left out" in text
    assert "<h3>Who takes part</h3>" in page
    assert "<strong>– left out</strong> D(E): curve_barrier E - G&#39;; D(E) is left out." in page
    assert "not decided if fewer than 4 of D(A), D(B), D(C), D(D), D(E), D(F) are left" in shown
    assert "train_error more than 0.05 above that of G in some seed" in shown
    other = verdict([{"arm": "R", "seed": 1, "quantity": "accuracy", "value": 0.5}], "restarts").to_dict()
    assert "admission" not in other
    assert "Who takes part" not in render(Report("Restarts", "Why?", other))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "table.csv"
    with place.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("arm", "seed", "quantity", "value"))
        writer.writeheader()
        writer.writerows(table({**untrained("F", error=None), **curves(HIGH, "C")}))
    command = ["verdict", str(place), "--rule", "resilience", "--setting", "tuned", "--chance", "0.1"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.startswith("Contradicted: the runs speak against the claim that mode connectivity can serve as a tool")
    assert "left out: F, which did not train." in out.replace("\n", " ")
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["answer"], told["rule"], told["version"]) == ("contradicted", "resilience", 1)
    assert [arm["arm"] for arm in told["admission"]["arms"] if arm["standing"] == "left out"] == ["F"]


GAIN = Part("gain", "error", "new", "old", 0.0)


def own(admission: Admission) -> Rule:
    return Rule("own", 1, "it helps", (GAIN,), all_of({"gain": "no"}), any_of({"gain": "yes"}), admission=admission)


def test_an_admission_that_cannot_be_computed_is_refused() -> None:
    for margin, least in ((float("nan"), 1), (0.1, 0), (0.1, 2)):
        with pytest.raises(UsageError, match="give a finite margin, and ask for one part or more"):
            Admission("error", "old", margin, ("new",), among=("gain",), least=least)
    with pytest.raises(UsageError, match=r"asks for .*'win'"):
        own(Admission("error", "old", 0.1, ("new",), among=("win",), least=1))

"""The distillation rule, branch by branch: one question in three measures, remarks, and what stands beside."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from closerlook.cli.cards import card
from closerlook.errors import UsageError
from closerlook.evidence import RULES, Agreed, Part, Rule, Verdict, all_of, any_of, verdict
from closerlook.evidence.paired import Answer
from closerlook.report import Report, render

CLAIM = "the knowledge a teacher shares goes mainly to the deeper layers of the student"
MEASURES = ("cca", "cka", "procrustes")
# Five seeds around a margin, in units of 0.01. "weak no" is no at 90 % and open at 95 %.
PATTERNS: Mapping[str, Sequence[float]] = {
    "yes": (4.0, 5.0, 6.0, 5.0, 4.0), "no": (-4.0, -5.0, -6.0, -5.0, -4.0), "open": (-3.0, 2.0, 4.0, -1.0, 0.0),
    "weak no": (-4.0, 0.2, -2.0, -3.0, -0.5), "weak yes": (4.0, -0.2, 2.0, 3.0, 0.5),
}  # fmt: skip
MARGINS = {"C1": 0.05, "C2": 0.02, "C3": 0.02, "C4": 0.10, "E0": 0.01, "E1": 0.0, "E2": 0.0}
YES = dict.fromkeys(MARGINS, "yes")
SIDES: tuple[Answer, ...] = ("yes", "no", "open")


def rows(seeds: int = 5, **answers: str) -> list[dict[str, Any]]:
    """A table whose questions answer as asked: by question ("C1"), or by question and measure ("C1_cka")."""
    values: dict[tuple[str, str], list[float]] = {}
    effect = {name: _effect(name, (YES | answers)[name]) for name in ("E0", "E1", "E2", "C4")}
    hard = np.full(5, 0.6)
    values["H", "accuracy"], values["T", "accuracy"] = list(hard), list(hard + effect["E0"])
    values["D", "accuracy"] = list(hard + effect["E2"])
    values["H", "divergence"], values["D", "divergence"] = list(hard), list(hard - effect["E1"])
    values["TL", "recovered_divergence"], values["TE", "recovered_divergence"] = list(hard + effect["C4"]), list(hard)
    for measure in MEASURES:
        c1, c2, c3 = (_effect(part, answers.get(f"{part}_{measure}", (YES | answers)[part])) for part in READ)
        values["D", f"depth_contrast:{measure}"] = list(c1)
        values["SP", f"depth_contrast:{measure}"] = list(c1 - c3)
        values["D", f"specific_contrast:{measure}"] = list(hard + c2)
        values["H", f"specific_contrast:{measure}"] = list(hard)
    return [
        {"arm": arm, "seed": 100 + seed, "quantity": quantity, "value": found[seed]}
        for (arm, quantity), found in values.items() for seed in range(seeds)
    ]  # fmt: skip


READ = ("C1", "C2", "C3")


def _effect(name: str, answer: str) -> np.ndarray:
    return MARGINS[name] + 0.01 * np.array(PATTERNS[answer])


def judged(rule: str = "distillation", **answers: str) -> Verdict:
    return verdict(rows(**answers), rule, "tuned")


def answered(found: Verdict) -> dict[str, list[str]]:
    """Answers of every question at its levels, narrowest first."""
    parts = {each.part.name: [level.answer for level in each.effect.intervals] for each in found.parts}
    return parts | {each.agreed.name: list(each.answers.values()) for each in found.agreements}


def test_patterns_answer_as_they_are_called() -> None:
    found = answered(judged(C1="weak no", C2="open", C3="no", C4="weak no"))
    for measure in MEASURES:
        assert (found[f"C1[{measure}]"], found[f"C3[{measure}]"]) == (["no", "open"], ["no"])
    assert (found["C1"], found["C2"], found["C3"], found["C4"]) == (["no", "open"], ["open"], ["no"], ["no", "open"])
    assert answered(judged(C1="weak yes"))["C1"] == ["yes", "open"]


def expected(c1: str, c2: str, c3: str, c4: str) -> str:
    """The decision in the words of docs/decision_rules.md, written a second time."""
    if "no" in (c1, c4):
        return "contradicted"
    return "supported" if (c1, c2, c3, c4) == ("yes",) * 4 else "not decided"


def test_every_combination_of_answers() -> None:
    strong, others = ("yes", "no", "open", "weak no"), (("yes", "yes"), ("no", "yes"), ("open", "no"))
    for c1, (c2, c3), c4 in product(strong, others, strong):
        found = judged(C1=c1, C2=c2, C3=c3, C4=c4)
        assert found.answer == expected(c1, c2, c3, c4), (c1, c2, c3, c4)
        assert found.words.startswith(f"{found.answer.capitalize()}: ")
        assert CLAIM in found.words
        assert any("not specific to this teacher" in note for note in found.notes) == ((c1, c2) == ("yes", "no"))
        assert any("any soft target does it" in note for note in found.notes) == ((c1, c3) == ("yes", "no"))


@pytest.mark.parametrize("part", ["C1", "C2", "C3"])
def test_two_of_three_measures_answer_if_none_opposes(part: str) -> None:
    for told in product(("yes", "no", "open"), repeat=3):
        found = judged(**{f"{part}_{measure}": answer for measure, answer in zip(MEASURES, told, strict=True)})
        answers = answered(found)
        assert [answers[f"{part}[{measure}]"][0] for measure in MEASURES] == list(told)
        assert answers[part][0] == of_three(told), told
        if of_three(told) == "open":
            assert found.answer == "not decided"


def of_three(told: Sequence[str]) -> str:
    kinds = sorted(told)
    return {
        ("yes", "yes", "yes"): "yes", ("open", "yes", "yes"): "yes",
        ("no", "no", "no"): "no", ("no", "no", "open"): "no",
    }.get((kinds[0], kinds[1], kinds[2]), "open")  # fmt: skip


def test_opposition_at_the_narrow_level_counts_at_every_level() -> None:
    # At 95 % two measures say no and the third is open; at 90 % it says yes.
    found = judged(C1_cca="no", C1_cka="no", C1_procrustes="weak yes")
    assert answered(found)["C1[procrustes]"] == ["yes", "open"]
    assert answered(found)["C1"] == ["open", "open"]
    assert found.answer == "not decided"


@pytest.mark.parametrize("narrow", list(product(SIDES, repeat=3)))
def test_agreement_is_symmetric_and_a_wider_interval_never_says_more(narrow: tuple[Answer, ...]) -> None:
    contrast = Agreed("C", ("a", "b", "c"))
    mirror: dict[Answer, Answer] = {"yes": "no", "no": "yes", "open": "open"}
    told = contrast.answer(narrow, narrow)
    for kept in product((True, False), repeat=3):
        wide: list[Answer] = [answer if keep else "open" for answer, keep in zip(narrow, kept, strict=True)]
        assert contrast.answer(wide, narrow) in (told, "open")
    mirrored = [mirror[each] for each in narrow]
    assert contrast.answer(mirrored, mirrored) == mirror[told]
    assert contrast.answer(narrow[::-1], narrow[::-1]) == told


def test_words_of_every_outcome() -> None:
    found = judged()
    assert found.words == (
        f"Supported: {CLAIM}, because distillation closes over 0.05 more of the room to the teacher in the deeper half "
        "of the layers than in the other (C1), what is specific to the student's own teacher sits deeper, by over 0.02 "
        "of similarity (C2), soft targets favour the deeper half by over 0.02 of the room to the teacher more than "
        "permuted ones do (C3), and re-training the deeper half with the teacher recovers over 0.1 more of the "
        "divergence that distillation removes than re-training the other half (C4)."
    )
    assert judged(C1="no").words == (
        f"Contradicted: the runs speak against the claim that {CLAIM}, because distillation does not close 0.05 more "
        "of the room to the teacher in the deeper half of the layers than in the other (C1)."
    )
    weak = judged(C1="weak no", C2="open").words
    assert weak.startswith(f"Not decided: these runs do not settle whether {CLAIM}, since distillation does not close ")
    assert "(C1) at 90 % but not at the 95 % that one part alone must reach, it is open whether what is" in weak


def test_remarks_come_first_among_the_notes() -> None:
    found = judged(C2="no", C3="no")
    assert found.notes[0].startswith("deep, but not specific to this teacher: ")
    assert found.notes[1].startswith("deep, but any soft target does it: ")
    assert found.notes[2] == (
        "C1 is yes at 90 %, yes at 95 %: what two of C1[cca], C1[cka], C1[procrustes] say, if none says the opposite"
    )
    assert "shown beside the verdict, never decisive: E2" in found.notes


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("E0", "the teacher has nothing to teach here, since the teacher is not 1 point of accuracy above the "
               "hard-label student (E0)."),
        ("E1", "nothing was taken over from the teacher here, since distillation brings the predictions on test "
               "images no closer to the teacher's (E1)."),
    ],
)  # fmt: skip
def test_preconditions_come_before_every_answer(part: str, words: str) -> None:
    assert judged(**{part: "no"}).words == f"Not decided: {words}"
    assert judged(**{part: "no"}, C1="no").answer == "not decided"
    unclear = words.partition(", since")[0]
    assert judged(**{part: "open"}).words.startswith(f"Not decided: perhaps {unclear}, since it is open whether ")
    assert not any("deep, but" in note for note in judged(**{part: "no"}, C2="no").notes)


def test_gain_in_accuracy_is_shown_with_its_interval_even_where_open() -> None:
    for answer in SIDES:
        found = judged(E2=answer)
        part = next(each for each in found.parts if each.part.name == "E2")
        assert (found.answer, part.effect.answer, part.part.contrast) == ("supported", answer, "accuracy D - H")
        assert part.effect.intervals[0].low is not None


def test_one_measure_may_be_missing() -> None:
    without = [each for each in rows() if each["quantity"] != "depth_contrast:cca"]
    assert verdict(without, "distillation").answer == "supported"
    gap = [each | {"value": None} if each["quantity"].endswith(":cca") else each for each in rows()]
    assert verdict(gap, "distillation").answer == "supported"
    two = [each for each in without if each["quantity"] != "depth_contrast:cka"]
    assert verdict(two, "distillation").answer == "not decided"


def test_seeds() -> None:
    few = verdict(rows(2), "distillation-small")
    assert (few.answer, answered(few)["C1"]) == ("numbers only", ["open", "open"])
    three = verdict(rows(3), "distillation-small")
    assert (three.answer, three.provisional) == ("supported", True)


def test_forms_differ_in_what_is_shown_only() -> None:
    small, plain = RULES["distillation-small"], RULES["distillation"]
    for field in ("parts", "agreed", "preconditions", "supported", "contradicted", "remarks", "version"):
        assert getattr(small, field) == getattr(plain, field)
    more = [
        {"arm": arm, "seed": 100, "quantity": "accuracy", "value": 0.6} for arm in ("SP", "LS", "U", "TL", "D:t=2", "X")
    ]
    shown = {
        rule.name: [each.name for each in verdict(rows() + more, rule).illustrations] for rule in (small, plain)
    }  # fmt: skip
    assert shown["distillation-small"] == ["accuracy(SP)", "accuracy(TL)"]
    assert shown["distillation"] == ["accuracy(SP)", "accuracy(TL)", "accuracy(LS)", "accuracy(U)", "D:t=2"]
    assert "not used by this rule: accuracy of arm X" in verdict(rows() + more, plain).notes


def test_terminal_report_and_card_show_everything() -> None:
    found = judged(C1="weak no", C2="open")
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    text, page, shown = str(found), render(Report("Distillation", "Where?", stored)), card("rule", "distillation")
    for each in found.parts:
        for place in (text, page, shown):
            assert each.part.name in place
            assert each.part.contrast in place
    assert "note: C1 is no at 90 %, open at 95 %: what two of" in text
    assert stored["agreements"][0] == {
        "name": "C1", "parts": ["C1[cca]", "C1[cka]", "C1[procrustes]"], "answer": "no",
        "levels": [{"level": 0.9, "answer": "no"}, {"level": 0.95, "answer": "open"}],
        "says": found.agreements[0].agreed.says("no"),
    }  # fmt: skip
    assert "  C1: what two of C1[cca], C1[cka], C1[procrustes] say, if none says the opposite" in shown
    assert "contradicted if C1 is no or C4 is no (95 % intervals)" in shown
    assert "agreements" not in verdict(rows(), OWN).to_dict()


OWN_PARTS = tuple(Part(f"G[{name}]", f"depth_contrast:{name}", "D", "SP", 0.0) for name in MEASURES)
OWN = Rule("own", 1, "it is so", OWN_PARTS, all_of({"G[cca]": "yes"}), any_of({"G[cca]": "no"}))


def own(agreed: Agreed, asked: str = "G") -> Rule:
    return Rule("own", 1, "it is so", OWN_PARTS, all_of({asked: "yes"}), any_of({asked: "no"}), agreed=(agreed,))


def test_an_agreement_of_ones_own() -> None:
    rule = own(Agreed("G", ("G[cca]", "G[cka]", "G[procrustes]")))
    assert verdict(rows(), rule).words == "Supported: it is so, because G is yes."
    assert rule.beside() == []
    assert rule.levels("G[cca]") == rule.levels("G") == (0.9,)
    unasked = own(Agreed("K", ("G[cka]", "G[procrustes]")), asked="G[cca]")
    assert unasked.beside() == ["G[cka]", "G[procrustes]"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("G[cca]", "G[dot]", "G[cka]"), r"asks for .*'G\[dot\]'"), (("G[cca]", "G[dot]"), "name each part once"),
        ((), "name 2 or more, each once"), (("G[cca]",), "name 2 or more"), (("G[cca]",) * 3, "each once"),
    ],
)  # fmt: skip
def test_an_agreement_of_unknown_parts_is_refused(parts: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        own(Agreed("G", parts))


def test_an_agreement_needs_its_own_name() -> None:
    with pytest.raises(UsageError, match="name each part once"):
        own(Agreed("G[cka]", ("G[cka]", "G[procrustes]")), asked="G[cca]")

"""The warmup rule, branch by branch: preconditions, the middle of two arms, boundary shares, and what stands beside."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pytest

from closerlook.errors import UsageError
from closerlook.evidence import RULES, Part, Precondition, Remark, Rule, Verdict, all_of, any_of, verdict
from closerlook.report import Report, render

CLAIM = "warmup works by keeping the deeper layers from creating instability"
# What a run reaches: it fails, trains, or does either in turn. N fails and W trains, so the middle is 0.475.
RUNS = {"no": (0.1,), "yes": (0.85,), "open": (0.1, 0.85), "weak no": (0.1, 0.1, 0.1, 0.1, 0.675)}
JUDGED = {"warmup-small": "H", "warmup": "B"}
HOLDS = {"WD": "yes", "WS": "no", "P": "no", "FD": "no"}


def rows_of(quantity: str, values: Mapping[str, Sequence[float | None]], seeds: int) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "seed": 100 + seed, "quantity": quantity, "value": found[seed % len(found)]}
        for arm, found in values.items() for seed in range(seeds)
    ]  # fmt: skip


def accuracies(seeds: int = 5, **runs: Sequence[float | None]) -> list[dict[str, Any]]:
    """Accuracies as the claim has it; `runs` replaces those of an arm."""
    claimed = {"N": RUNS["no"], "W": RUNS["yes"]} | {arm: RUNS[answer] for arm, answer in HOLDS.items()}
    return rows_of("accuracy", claimed | runs, seeds)


def shares(seeds: int = 5, **found: Sequence[float | None]) -> list[dict[str, Any]]:
    """Boundary shares as the claim has it."""
    return rows_of("boundary_share", {"WD": (0.9, 0.95), "WS": (0.1, 0.2), "P": (0.0, -0.1)} | found, seeds)


def answered(found: Verdict) -> dict[str, str]:
    return {each.part.name: each.effect.answer for each in found.parts}


def judged(rule: str, **answers: str) -> Verdict:
    """Verdict where the arms answer as asked in what the rule judges."""
    if rule == "warmup-small":
        return verdict(accuracies(**{arm: RUNS[answer] for arm, answer in answers.items()}), rule, "tuned")
    # The same five values, moved so that the margin lies at 0.5.
    moved = {arm: [value + 0.025 for value in RUNS[answer]] for arm, answer in answers.items()}
    return verdict(accuracies() + shares(**moved), rule, "tuned")


def expected(deep: str, shallow: str, random: str) -> str:
    """The decision in the words of docs/decision_rules.md, written a second time."""
    if deep == "no" or shallow == "yes":
        return "contradicted"
    no = ("no", "weak no")
    return "supported" if deep == "yes" and shallow in no and random in no else "not decided"


@pytest.mark.parametrize("rule", JUDGED)
def test_every_combination_of_answers(rule: str) -> None:
    for deep, shallow, random in product(RUNS, repeat=3):
        found = judged(rule, WD=deep, WS=shallow, P=random)
        answers = answered(found)
        for arm, answer in (("WD", deep), ("WS", shallow), ("P", random)):
            assert answers[f"{JUDGED[rule]}({arm})"] == answer.removeprefix("weak ")
        assert found.answer == expected(deep, shallow, random), (deep, shallow, random)
        assert found.words.startswith(f"{found.answer.capitalize()}: ")
        assert CLAIM in found.words


def test_words_of_every_outcome() -> None:
    assert judged("warmup-small").words == (
        f"Supported: {CLAIM}, because warming up the deep block alone keeps more than half of the benefit (H(WD)), "
        "warming up all but the deep block keeps less than half of the benefit (H(WS)), and warming up a random set of "
        "as many parameters keeps less than half of the benefit (H(P))."
    )
    assert judged("warmup-small", WD="no", WS="yes").words == (
        f"Contradicted: the runs speak against the claim that {CLAIM}, because warming up the deep block alone keeps "
        "less than half of the benefit (H(WD)), and warming up all but the deep block keeps more than half of the "
        "benefit (H(WS))."
    )
    assert judged("warmup", WS="yes").words == (
        f"Contradicted: the runs speak against the claim that {CLAIM}, because warming up all but the deep block moves "
        "the failure boundary more than half as far as full warmup (B(WS))."
    )
    undecided = judged("warmup-small", WD="weak no", P="yes").words
    assert undecided.startswith(f"Not decided: these runs do not settle whether {CLAIM}, since warming up the deep ")
    assert "(H(WD)) at 90 % but not at the 95 % that one part alone must reach, warming up all but" in undecided
    assert "and warming up a random set of as many parameters keeps more than half of the benefit (H(P))" in undecided


def test_effect_is_taken_from_the_middle_of_two_arms_within_the_seed() -> None:
    found = verdict(accuracies(N=(0.2, 0.4), W=(0.8,), WD=(0.7, 0.5)), "warmup-small")
    part = next(each for each in found.parts if each.part.name == "H(WD)")
    assert list(part.effect.values.values()) == pytest.approx([0.2, -0.1, 0.2, -0.1, 0.2])
    assert part.part.contrast == "accuracy WD - mean(N, W)"
    assert part.to_dict()["baseline"] == "mean(N, W)"


@pytest.mark.parametrize("rule", JUDGED)
def test_no_instability_comes_before_every_answer(rule: str) -> None:
    none = verdict(accuracies(N=(0.85, 0.84)) + shares(), rule)
    assert none.answer == "not decided"
    assert none.words == (
        "Not decided: no instability to explain here, since warmup gains less than 5 points of accuracy over none (E0)."
    )
    unclear = verdict(accuracies(N=(0.85, 0.1)) + shares(), rule)
    assert unclear.words == (
        "Not decided: perhaps no instability to explain here, since it is open whether warmup gains more than 5 points "
        "of accuracy over none (E0)."
    )


def test_runs_that_diverge_count_as_chance_from_five_seeds_on() -> None:
    gone = accuracies(N=(None,), WS=(None, 0.1), P=(None,))
    found, finite = verdict(gone, "warmup-small", chance=0.1), verdict(accuracies(), "warmup-small")
    assert found.answer == "supported"
    assert [each.effect for each in found.parts] == [each.effect for each in finite.parts]
    where = "arm N, seed 100 (also 101, 102, 103, 104) has no accuracy (diverged); it counts as chance, 0.1"
    assert [f"{part}: {where}" in found.notes for part in ("E0", "H(WD)", "H(WS)", "H(P)", "H(FD)")] == [True] * 5
    assert "H(WS): arm WS, seed 100 (also 102, 104) has no accuracy (diverged); it counts as chance, 0.1" in found.notes
    unknown = verdict(gone, "warmup-small")
    assert unknown.words.startswith("Not decided: perhaps no instability to explain here")
    assert any("give the chance level" in note for note in unknown.notes)


@pytest.mark.parametrize("rule", JUDGED)
@pytest.mark.parametrize("value", [None, 0.1])
def test_a_run_that_trains_or_fails_is_not_judged_over_three_seeds(rule: str, value: float | None) -> None:
    # Slightly different accuracies, as trained runs have them, must not make three seeds enough.
    found = verdict(accuracies(3, N=(value,), W=(0.85, 0.84, 0.86)) + shares(3), rule, chance=0.1)
    assert (found.answer, found.provisional) == ("not decided", True)
    why = "a run diverged" if value is None else "a run trains or fails"
    assert f"E0: {why}, and an outcome that is all or nothing needs 5 seeds; open" in found.notes
    assert found.words.endswith("(E0); provisional with 3 seeds.")
    assert verdict(accuracies(2), rule).answer == "numbers only"


@pytest.mark.parametrize(("rule", "arm"), [("warmup-small", "P"), ("warmup-small", "WD"), ("warmup", "P")])
def test_a_missing_arm_leaves_its_part_open(rule: str, arm: str) -> None:
    found = verdict([each for each in accuracies() + shares() if each["arm"] != arm], rule)
    seed, quantity = {
        "warmup-small": ("100 (also 101, 102, 103, 104)", "accuracy"),
        "warmup": ("102", "boundary_share"),
    }[rule]
    name = f"{JUDGED[rule]}({arm})"
    assert (found.answer, answered(found)[name]) == ("not decided", "open")
    assert f"{name}: arm {arm}, seed {seed} has no row of {quantity}; open" in found.notes


def test_without_full_warmup_nothing_is_decided() -> None:
    found = verdict([each for each in accuracies() if each["arm"] != "W"], "warmup-small")
    assert set(answered(found).values()) == {"open"}
    assert found.answer == "not decided"


@pytest.mark.parametrize("rule", JUDGED)
def test_frozen_block_stands_beside_and_gets_its_remark(rule: str) -> None:
    remark = RULES[rule].remarks[0].words
    for freezing, remarked in (("no", True), ("yes", False), ("open", False)):
        found = verdict(accuracies(FD=RUNS[freezing]) + shares(), rule)
        assert (found.answer, answered(found)["H(FD)"], remark in found.notes) == ("supported", freezing, remarked)
    assert remark not in verdict(accuracies(WD=RUNS["no"]) + shares(), rule).notes
    assert remark not in verdict(accuracies(W=(0.1,)) + shares(), rule).notes
    without = verdict([each for each in accuracies() + shares() if each["arm"] != "FD"], rule)
    assert without.answer == "supported"
    beside = {"warmup-small": "H(FD)", "warmup": "H(WD), H(WS), H(P), H(FD)"}[rule]
    assert f"shown beside the verdict, never decisive: {beside}" in found.notes


def test_shares_are_judged_and_accuracies_shown_in_the_standard_form() -> None:
    kept = {"WD": RUNS["no"], "WS": RUNS["yes"], "P": RUNS["yes"]}
    found = verdict(accuracies(**kept) + shares(), "warmup")
    assert found.answer == "supported"
    assert answered(found) == {
        "E0": "yes", "B(WD)": "yes", "B(WS)": "no", "B(P)": "no",
        "H(WD)": "no", "H(WS)": "yes", "H(P)": "yes", "H(FD)": "no",
    }  # fmt: skip
    part = next(each for each in found.parts if each.part.name == "B(WD)")
    assert list(part.effect.values.values()) == [0.9, 0.95, 0.9, 0.95, 0.9]
    assert (part.part.contrast, part.effect.margin) == ("boundary_share WD", 0.5)
    assert verdict(accuracies() + shares(WD=(0.9, None)), "warmup").answer == "not decided"


def test_other_frozen_blocks_and_small_batches_are_only_shown() -> None:
    more = rows_of("accuracy", {"FB:conv1": (0.1,), "FB:conv2": (0.8,), "SB": (0.84,), "FBX": (0.1,)}, 2)
    found = verdict(accuracies() + more, "warmup-small")
    assert [each.name for each in found.illustrations] == ["FB:conv1", "FB:conv2", "SB"]
    assert found.illustrations[1].says.endswith("frozen for as long as warmup lasts: conv2")
    assert dict(found.illustrations[0].values) == {"100": 0.1, "101": 0.1}
    standard = verdict(accuracies() + shares(FD=(0.2,)) + rows_of("boundary", {"N": (0.1,), "W": (0.4,)}, 5), "warmup")
    assert [each.name for each in standard.illustrations] == ["L(N)", "L(W)", "B(FD)"]
    assert [note for note in found.notes if "not used" in note] == ["not used by this rule: accuracy of arm FBX"]


@pytest.mark.parametrize("rule", JUDGED)
def test_terminal_and_report_show_everything(rule: str) -> None:
    found = verdict(accuracies(N=(None,)) + shares(), rule, "demonstration", chance=0.1)
    stored = json.loads(json.dumps(found.to_dict()))
    text, page = str(found), render(Report("Warmup", "Is the deep block enough?", stored))
    for each in found.parts:
        assert each.part.contrast in text
        assert each.part.contrast in page
        assert each.part.name in page
    assert f"Rule {rule}, version 1; setting demonstration; 5 seeds." in text
    assert f"note: {RULES[rule].remarks[0].words}" in text
    assert {row["baseline"] for row in found.rows()} <= {"N", "mean(N, W)", ""}


GAIN, TAUGHT = Part("gain", "loss", "R", "K", 0.0), Part("taught", "loss", "T", "K", 0.0)


def two(taught: float, gain: float, **changes: Any) -> Verdict:
    fields: dict[str, Any] = {
        "parts": (GAIN, TAUGHT), "supported": all_of({"gain": "yes"}), "contradicted": any_of({"gain": "no"}),
        "preconditions": (Precondition("taught", "nothing to teach"), Precondition("gain", "nothing learnt")),
    }  # fmt: skip
    scatter = (-0.1, 0.0, 0.1)
    values = {"K": (0.0,), "T": [taught + each for each in scatter], "R": [gain + each for each in scatter]}
    return verdict(rows_of("loss", values, 3), Rule("own", 1, "it helps", **(fields | changes)))


def test_several_preconditions_are_named_together() -> None:
    assert two(1.0, 1.0).answer == "supported"
    assert two(-1.0, 1.0).words == ("Not decided: nothing to teach, since taught is no; provisional with 3 seeds.")
    assert two(-1.0, 0.0).words == (
        "Not decided: nothing to teach, since taught is no, and perhaps nothing learnt, since gain is open; "
        "provisional with 3 seeds."
    )


def test_preconditions_and_remarks_of_unknown_parts_are_refused() -> None:
    with pytest.raises(UsageError, match=r"asks for .*'win'"):
        two(1.0, 1.0, preconditions=(Precondition("win", "none"),))
    with pytest.raises(UsageError, match=r"asks for .*'win'"):
        two(1.0, 1.0, remarks=(Remark(all_of({"win": "no"}), "none"),))

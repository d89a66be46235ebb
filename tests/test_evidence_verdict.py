"""The restarts rule, branch by branch, and what a verdict says about itself."""

import json
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closerlook.errors import UsageError
from closerlook.evidence import RULES, Control, Part, Rule, Verdict, all_of, any_of, verdict

# Differences of three seeds in units of the margin. "weak no" is no at 90 % and open at 95 %.
PATTERNS = {
    "yes": (2.0, 2.1, 2.2), "open": (-3.0, 1.0, 5.0), "no": (-0.1, 0.0, 0.1), "weak no": (0.3, 0.55, 0.8),
}  # fmt: skip
CONTRASTS = {
    "E0": ("accuracy", "S", 0.005), "E1": ("separation", "K", 0.1),
    "E2": ("function_separation", "K", 0.1), "E3": ("accuracy", "K", 0.005),
}  # fmt: skip
YES = dict.fromkeys(CONTRASTS, "yes")


def row(arm: str, seed: object, quantity: str, value: object) -> dict[str, Any]:
    return {"arm": arm, "seed": seed, "quantity": quantity, "value": value}


def table(repeat: int = 1, **answers: str) -> list[dict[str, Any]]:
    """Rows whose parts answer as asked, with passing controls; `repeat` triples the seeds with nearly equal values."""
    rows = [row("I", "100-101", "seed_barrier", 1.2), row("I", "101-102", "seed_barrier", 1.4)]
    for seed in range(100, 100 + 3 * repeat):
        rows += [row("R", seed, quantity, 0.5) for quantity in ("accuracy", "separation", "function_separation")]
        rows.append(row("R", seed, "self_barrier", 0.01))
        for part, (quantity, baseline, margin) in CONTRASTS.items():
            pattern = PATTERNS[(YES | answers)[part]]
            rows.append(row(baseline, seed, quantity, 0.5 - margin * pattern[seed % 3]))
    return rows


def without(rows: list[dict[str, Any]], **match: Any) -> list[dict[str, Any]]:
    return [each for each in rows if any(each[key] != value for key, value in match.items())]


def changed(rows: list[dict[str, Any]], value: Any, **match: Any) -> list[dict[str, Any]]:
    return [each | {"value": value} if all(each[k] == v for k, v in match.items()) else each for each in rows]


def expected(e0: str, e1: str, e2: str, e3: str) -> str:
    """The decision in the words of docs/decision_rules.md, written a second time."""
    if e0 in ("no", "weak no"):
        return {"yes": "contradicted", "no": "supported", "weak no": "supported", "open": "not decided"}[e1]
    if (e1, e2, e3) == ("yes", "yes", "yes"):
        return "contradicted"
    return "supported" if "no" in (e1, e3) else "not decided"


def test_patterns_answer_as_they_are_called() -> None:
    found = verdict(table(E0="weak no", E1="weak no", E2="open", E3="no"))
    assert [part.effect.answer for part in found.parts] == ["no", "no", "open", "no"]
    assert [part.effect.intervals[-1].answer for part in found.parts] == ["no", "open", "open", "no"]
    assert [len(part.effect.intervals) for part in found.parts] == [1, 2, 1, 2]


def test_every_combination_of_answers() -> None:
    for answers in product(PATTERNS, repeat=4):
        found = verdict(table(**dict(zip(CONTRASTS, answers, strict=True))))
        assert found.answer == expected(*answers), answers
        assert found.words.startswith(found.answer.capitalize() + ": ")
        assert ("no benefit to explain here" in found.words) == (answers[0] in ("no", "weak no"))


def test_words_name_the_reason() -> None:
    assert verdict(table(), setting="tuned").words == (
        "Contradicted: the runs speak against the claim that the reasons usually given for the success of "
        "warm restarts are not evidenced, because restarts separate successive floors in weight space more "
        "than a cooled trunk does, by over 0.1 of the barrier between seeds (E1), restarts separate "
        "successive floors in function more than a cooled trunk does, by over 0.1 of the disagreement between"
        " seeds (E2), and restarts gain more than 0.5 points of accuracy over a cooled trunk (E3); "
        "provisional with 3 seeds."
    )
    assert "(E1), and restarts gain less than 0.5 points" in verdict(table(E1="no", E3="no")).words
    assert "it is open whether restarts gain more than 0.5 points" in verdict(table(E3="open")).words
    weak = verdict(table(E3="weak no")).words
    assert "over a cooled trunk (E3) at 90 % but not at the 95 % that one part alone must reach" in weak


def test_small_form_differs_in_the_margin_of_accuracy_only() -> None:
    small, plain = RULES["restarts-small"], RULES["restarts"]
    assert [part.margin for part in plain.parts] == [0.005, 0.1, 0.1, 0.005]
    assert [part.margin for part in small.parts] == [0.010, 0.1, 0.1, 0.010]
    assert (small.version, small.controls, small.supported) == (1, plain.controls, plain.supported)
    assert verdict(table(), rule="restarts-small").answer == "not decided"
    assert "less than 1 point of accuracy" in verdict(table(E3="no"), rule="restarts-small").words


@pytest.mark.parametrize(
    "rows",
    [
        changed(table(), 0.2, quantity="seed_barrier", seed="100-101"),
        changed(table(), 0.02, quantity="self_barrier", seed=102),
        changed(table(), None, quantity="seed_barrier", seed="100-101"),
        changed(table(), None, quantity="self_barrier", seed=101),
        without(table(), quantity="self_barrier", seed=101),
        without(table(), quantity="seed_barrier"),
        without(table(), quantity="self_barrier"),
    ],
)
def test_a_failed_control_comes_before_every_answer(rows: list[dict[str, Any]]) -> None:
    found = verdict(rows)
    assert found.answer == "not decided"
    assert found.words.startswith("Not decided: the instrument cannot tell here, because")
    assert [control.passed for control in found.controls].count(False) == 1


@pytest.mark.parametrize(("seeds", "answer"), [(1, "numbers only"), (2, "numbers only"), (3, "contradicted")])
def test_fewer_than_three_seeds_give_numbers_only(seeds: int, answer: str) -> None:
    rows = [each for each in table() if str(each["seed"]) < str(100 + seeds) or "-" in str(each["seed"])]
    found = verdict(rows)
    assert (found.answer, found.provisional, len(found.seeds)) == (answer, True, seeds)
    assert found.parts[0].effect.mean is not None


def test_five_seeds_settle_it() -> None:
    rows = [each for each in table(repeat=2) if each["seed"] != 105]
    found = verdict(rows, setting="tuned")
    assert (found.answer, found.provisional) == ("contradicted", False)
    assert "provisional" not in found.words


def test_a_demonstration_says_so() -> None:
    chosen = "at a setting chosen to show it"
    assert chosen in verdict(table(), setting="demonstration").words
    assert chosen not in verdict(table(), setting="tuned").words
    assert "how the setting was chosen is not stated" in str(verdict(table()))


def test_a_diverged_run_leaves_separation_open() -> None:
    found = verdict(changed(table(), None, arm="K", seed=101, quantity="separation"), chance=0.1)
    part = found.parts[1]
    assert (part.effect.answer, part.effect.n, part.effect.values["101"]) == ("open", 2, None)
    assert part.notes == ("E1: arm K, seed 101 has no value of separation; open",)


def test_a_missing_row_leaves_the_part_open_even_with_chance() -> None:
    found = verdict(without(table(), arm="K", seed=101, quantity="accuracy"), chance=0.1)
    assert found.parts[3].effect.answer == "open"
    assert found.notes == ("E3: arm K, seed 101 has no row of accuracy; open",)


def test_a_diverged_accuracy_counts_as_chance_from_five_seeds_on() -> None:
    for repeat, answers in ((1, ["open", "open"]), (2, ["open", "yes"])):
        rows = changed(table(repeat=repeat), "", arm="K", seed=101, quantity="accuracy")
        assert verdict(rows).parts[3].effect.answer == "open"
        assert "give the chance level" in verdict(rows).notes[0]
        part = verdict(rows, chance=0.4).parts[3]
        assert part.effect.values["101"] == pytest.approx(0.1)
        assert part.effect.answer == answers[0]  # one seed of six is far off: the interval is wide
        everywhere = changed(table(repeat=repeat), None, arm="K", quantity="accuracy")
        assert verdict(everywhere, chance=0.4).parts[3].effect.answer == answers[1]
    assert verdict(everywhere, chance=0.4).notes[0].endswith("(diverged); it counts as chance, 0.4")


def test_equal_differences_say_why_they_are_open() -> None:
    found = verdict(changed(table(), 0.0, quantity="separation"))
    assert "E1: all differences are equal, and an outcome that is all or nothing needs 5 seeds; open" in found.notes


def test_illustrations_and_unused_rows_are_shown() -> None:
    extra = [row("R'", 100, "separation", 0.3), row("C", 100, "accuracy", 0.9), row("R", 100, "acuracy", 0.9)]
    found = verdict(table() + extra)
    assert [(shown.name, dict(shown.values), shown.passed) for shown in found.illustrations] == [
        ("E4", {"100": 0.3}, None)
    ]
    assert found.notes == (
        "not used by this rule: accuracy of arm C", "not used by this rule: acuracy of arm R",
    )  # fmt: skip
    assert found.answer == verdict(table()).answer


def test_dictionary_is_deterministic_json(tmp_path: Any) -> None:
    rows = changed(table(), None, arm="K", seed=101, quantity="separation")
    shuffled = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))]
    pd.DataFrame(shuffled).to_csv(tmp_path / "table.csv", index=False)
    texts = {json.dumps(verdict(each).to_dict(), allow_nan=False) for each in (rows, shuffled, tmp_path / "table.csv")}
    assert len(texts) == 1
    part = json.loads(texts.pop())["parts"][3]
    figure = {"name", "values", "effect", "low", "high", "margin", "answer", "unit"}
    assert figure <= set(part)
    assert (part["n"], part["answer"], part["shares"]["above_margin"]) == (3, "yes", 1.0)


def test_rows_are_flat() -> None:
    frame = pd.DataFrame(verdict(table()).rows())
    assert frame[["part", "level"]].to_numpy().tolist() == [
        ["E0", 0.9], ["E1", 0.9], ["E1", 0.95], ["E2", 0.9], ["E3", 0.9], ["E3", 0.95],
    ]  # fmt: skip
    assert {"effect", "low", "high", "margin", "answer", "n", "smallest_decidable", "share_above_zero"} <= set(frame)


def test_terminal_text_is_aligned_and_complete() -> None:
    found = verdict(changed(table(), None, arm="K", seed=101, quantity="separation"), setting="tuned")
    text = str(found)
    assert text.startswith("Not decided: ")
    assert max(map(len, text.splitlines())) <= 110
    header, first = (line for line in text.splitlines() if line.startswith(("part  difference", "E0    accuracy")))
    assert header.index("answer") == first.index("yes")
    assert "Rule restarts, version 1; setting tuned; 3 seeds, provisional." in text
    assert "control passed: the barrier between any two seeds is above 0.2 nats (100-101: 1.2000" in text
    assert "note: E1: arm K, seed 101 has no value of separation; open" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "restart"}, "no rule is called 'restart'; choose one of distillation, .*, restarts, "),
        ({"setting": "best"}, "a setting is 'tuned' or 'demonstration', not 'best'"),
        ({"chance": 10}, "chance is a fraction from 0 to 1, not 10"),
        ({"table": [row("A", 1, "loss", 0.5)]}, "holds nothing that rule restarts compares; it compares accuracy of"),
    ],
)
def test_wrong_use_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        verdict(**({"table": table()} | arguments))


GAIN = Part("gain", quantity="loss", arm="R", baseline="K", margin=0.0)


def own_rule(**changes: Any) -> Rule:
    fields = {"parts": (GAIN,), "supported": all_of({"gain": "yes"}), "contradicted": all_of({"gain": "no"})}
    return Rule("own", 2, "it helps", **(fields | changes))


def own(differences: list[float], **changes: Any) -> Verdict:
    rows = [row("R", seed, "loss", value) for seed, value in enumerate(differences)]
    return verdict(rows + [row("K", seed, "loss", 0.0) for seed in range(len(differences))], own_rule(**changes))


def test_a_rule_of_ones_own() -> None:
    assert own([1.0, 1.1, 1.2]).answer == "supported"
    assert own([-1.0, -1.1, -1.2]).answer == "contradicted"
    assert own([-1.0, 0.1, 1.2]).words == (
        "Not decided: these runs do not settle whether it helps, since gain is open; provisional with 3 seeds."
    )
    control = Control("above", "loss", "K", "the loss of K is above 1", above=1.0)
    assert (
        "cannot tell here, because the runs do not show that the loss of K is above 1"
        in own([1.0, 1.1, 1.2], controls=(control,)).words
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": (GAIN, GAIN)}, "name each part once"),
        ({"supported": all_of({"win": "yes"})}, "asks for .*'win'"),
        ({"supported": any_of({})}, "empty condition"),
        ({"parts": (Part("gain", "loss", "R", "K", float("nan")),)}, "margin that is not finite"),
    ],
)
def test_a_rule_that_cannot_be_computed_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        own_rule(**changes)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(3)), st.integers(-8, 8).map(lambda k: k / 32), st.sampled_from(sorted(PATTERNS)))
def test_seeds_and_common_shifts_do_not_matter(order: list[int], shift: float, answer: str) -> None:
    plain = table(E1=answer)
    moved = [
        each | {"seed": 100 + order[each["seed"] - 100], "value": each["value"] + shift * (each["quantity"] in SHIFTED)}
        if isinstance(each["seed"], int) else each
        for each in plain
    ]  # fmt: skip
    before, after = verdict(plain), verdict(moved)
    assert before.words == after.words
    for first, second in zip(before.parts, after.parts, strict=True):
        assert first.effect.mean == pytest.approx(second.effect.mean, abs=1e-12)


SHIFTED = ("accuracy", "separation", "function_separation")

"""One claim across set-ups: when there is a general verdict, and what is refused."""

import json
from itertools import product
from typing import Any, get_args

import pytest

from closerlook.errors import MismatchError, UsageError
from closerlook.evidence import Part, Rule, Verdict, across_setups, all_of, verdict
from closerlook.evidence.rule import Outcome

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
GAIN = Part("gain", "accuracy", "new", (), 0.5)
RULE = Rule("own", 1, "it is high", (GAIN,), supported=all_of({"gain": "yes"}), contradicted=all_of({"gain": "no"}))


def judged() -> Verdict:
    return verdict([{"arm": "new", "seed": n, "quantity": "accuracy", "value": 0.8 + n / 100} for n in range(3)], RULE)


def named(*answers: str) -> dict[str, str]:
    return {f"data{index} x net": answer for index, answer in enumerate(answers)}


def expected(answers: tuple[str, ...]) -> str:
    """The rule in the words of docs/decision_rules.md, written a second time."""
    told = [answer for answer in answers if answer != "numbers only"]
    for one, other in (("supported", "contradicted"), ("contradicted", "supported")):
        if len(told) >= 3 and answers.count(one) / len(answers) > 0.666 and other not in answers:
            return one
    return "not decided"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_every_combination(count: int) -> None:
    for answers in product(OUTCOMES, repeat=count):
        found = across_setups(named(*answers))
        assert found.answer == expected(answers), answers
        assert found.words.startswith(f"{found.answer.capitalize()} across {count} set-up")
        assert {name: told for told, of in found.by_answer.items() for name in of} == found.setups


def test_two_thirds_are_enough_and_one_opposite_is_too_many() -> None:
    assert across_setups(named("supported", "supported", "not decided")).answer == "supported"
    assert across_setups(named(*["supported"] * 4, "not decided", "not decided")).answer == "supported"
    assert across_setups(named(*["supported"] * 3, "not decided", "not decided")).answer == "not decided"
    assert across_setups(named(*["contradicted"] * 8, "supported")).answer == "not decided"


def test_what_it_depends_on_is_listed() -> None:
    found = across_setups({"fashion x vgg": "supported", "cifar x vgg": "contradicted", "cifar x resnet": "supported"})
    assert found.words == (
        "Not decided across 3 set-ups: it depends on the set-up (supported in fashion x vgg, cifar x resnet; "
        "contradicted in cifar x vgg)."
    )
    assert json.loads(json.dumps(found.to_dict())) == {
        "answer": "not decided", "words": found.words,
        "setups": {"fashion x vgg": "supported", "cifar x vgg": "contradicted", "cifar x resnet": "supported"},
        "by_answer": {"supported": ["fashion x vgg", "cifar x resnet"], "contradicted": ["cifar x vgg"]},
    }  # fmt: skip


def test_order_changes_no_answer() -> None:
    given = named("supported", "not decided", "supported", "numbers only")
    turned = dict(reversed(given.items()))
    assert across_setups(given).answer == across_setups(turned).answer == "not decided"  # two of four


def test_verdicts_and_their_files_are_taken_as_they_are() -> None:
    stored: dict[str, Any] = json.loads(json.dumps(judged().to_dict()))
    found = across_setups({"a": judged(), "b": stored, "c": "supported"})
    assert (found.answer, dict(found.setups)) == ("supported", dict.fromkeys("abc", "supported"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": 2}, r"differ in their version \(a: 1; b: 2\); give those of one rule and version"),
        ({"rule": "another"}, "differ in their rule"), ({"claim": "it is low"}, "differ in their claim"),
    ],
)  # fmt: skip
def test_different_questions_have_no_verdict_in_common(changed: dict[str, Any], message: str) -> None:
    plain = judged().to_dict()
    with pytest.raises(MismatchError, match=message):
        across_setups({"a": plain, "b": plain | changed})


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        ({}, "no verdicts were given"), ({"a": "yes"}, "set-up a has the verdict 'yes'; a verdict is one of supported"),
        ({"a": {"claim": "it is so"}}, "has the verdict None"),
    ],
)  # fmt: skip
def test_no_verdicts_are_refused(verdicts: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        across_setups(verdicts)

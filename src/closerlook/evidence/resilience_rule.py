"""The resilience rule: whether networks trained in different ways are joined as easily as two runs of one recipe."""

from closerlook.evidence.admission import Admission
from closerlook.evidence.conditions import all_of, any_of
from closerlook.evidence.questions import Control, Illustration, Part
from closerlook.evidence.rule import Rule

MODES = {
    "A": "a large batch", "B": "Adam", "C": "a linearly falling learning rate", "D": "a small weight decay",
    "E": "large initial weights", "F": "no augmentation",
}  # fmt: skip
_OPEN = 0.02  # of the training images
_UNTRAINED = 0.05  # of the training images
_UNIT = "of the training images"
_CONTROLS = (
    Control(
        "segment", "segment_barrier", "G'",
        "the straight segment between two runs of one recipe has a barrier above 10 points",
        above=0.10, per_seed=True,
    ),
    Control(
        "self_barrier", "self_barrier", "G",
        "the straight segment from a network to itself two epochs on, at its last rate, has a barrier below 2 points",
        below=_OPEN, per_seed=True,
    ),
)  # fmt: skip


def _yardstick() -> Part:
    return Part(
        "b(G')", "curve_barrier", "G'", (), _OPEN,
        yes="the curve to the same recipe again has a barrier above 2 points",
        no="the curve to the same recipe again has a barrier below 2 points",
        unit=_UNIT,
    )  # fmt: skip


def _mode(arm: str, change: str) -> Part:
    return Part(
        f"D({arm})", "curve_barrier", arm, "G'", _OPEN,
        yes=f"the curve to a network with {change} is more than 2 points worse than one to the same recipe again",
        no=f"the curve to a network with {change} is not 2 points worse than one to the same recipe again",
        unit=_UNIT,
    )  # fmt: skip


def _shown() -> tuple[Illustration, ...]:
    """Straight segments, and the pairs that share their initial weights."""
    arms = ("G'", *MODES)
    segments = (
        Illustration(f"segment({arm})", "segment_barrier", arm, f"barrier of the straight segment from G to {arm}")
        for arm in MODES
    )
    shared = (
        Illustration(
            f"{what}({arm} shared)", f"{what}_barrier", f"{arm} shared",
            f"barrier of the {path} from G to {arm} trained from the initial weights of G",
        )
        for arm in arms for what, path in (("curve", "curve"), ("segment", "straight segment"))
    )  # fmt: skip
    return (*segments, *shared)


def resilience_rule() -> Rule:
    """Rule for the claim that networks trained in different ways are joined as easily as equal ones, version 1.

    The claim is that of Gotmare et al. 2019 (arXiv 1810.13243), section 2. Arms: G the reference, G' the same recipe
    again, A to F one change each; the barrier of an arm is that of the trained curve from G to it. One form serves
    every scale.
    """
    differences = tuple(f"D({arm})" for arm in MODES)
    return Rule(
        name="resilience",
        version=1,
        claim=(
            "mode connectivity can serve as a tool, in that networks trained in different ways are joined by a curve "
            "as easily as two runs of one recipe"
        ),
        parts=(_yardstick(), *(_mode(arm, change) for arm, change in MODES.items())),
        supported=all_of({"b(G')": "no", **dict.fromkeys(differences, "no")}),
        contradicted=any_of(dict.fromkeys(differences, "yes")),
        controls=_CONTROLS,
        illustrations=_shown(),
        admission=Admission(
            "train_error", "G", _UNTRAINED, arms=("G'", *MODES), among=differences, least=4, otherwise="did not train",
        ),
    )  # fmt: skip

"""The restarts rule: whether restarts reach another solution, and whether that is why they help."""

from closerlook.evidence.conditions import Gate, all_of, any_of
from closerlook.evidence.questions import Control, Illustration, Part
from closerlook.evidence.rule import Rule

_SEPARATION = 0.10
_CONTROLS = (
    Control(
        "seed_barrier", "seed_barrier", "I", "the barrier between any two seeds is above 0.2 nats",
        above=0.2,
    ),
    Control(
        "self_barrier", "self_barrier", "R",
        "a floor and itself two epochs later at the final learning rate are less than 0.02 nats apart",
        below=0.02, per_seed=True,
    ),
)  # fmt: skip
_ILLUSTRATIONS = (
    Illustration(
        "E4", "separation", "R'",
        "barrier between two branches of the last restart, over the barrier between seeds: near 0 the restart stays in "
        "one valley, near 1 it chose its solution anew",
    ),
    Illustration("s(S)", "separation", "S", "separation of the cooled snapshots of step decay in weight space"),
    Illustration("d(S)", "function_separation", "S", "separation of the cooled snapshots of step decay in function"),
)  # fmt: skip


def _separation(name: str, quantity: str, where: str, unit: str) -> Part:
    more = f"{_SEPARATION:g} {unit}"
    return Part(
        name, quantity, "R", "K", _SEPARATION,
        yes=f"restarts separate successive floors in {where} more than a cooled trunk does, by over {more}",
        no=f"restarts do not separate successive floors in {where} by {more} more than a cooled trunk does",
        unit=unit,
    )  # fmt: skip


def _gain(name: str, baseline: str, against: str, margin: float) -> Part:
    points = f"{100 * margin:g} point" + "s" * (margin != 0.01)
    return Part(
        name, "accuracy", "R", baseline, margin,
        yes=f"restarts gain more than {points} of accuracy over {against}",
        no=f"restarts gain less than {points} of accuracy over {against}",
        unit="of the test images",
    )  # fmt: skip


def restarts_rule(name: str, margin: float) -> Rule:
    """Rule for the claim that the reasons usually given for warm restarts are not evidenced, version 1.

    The claim is that of Gotmare et al. 2019 (arXiv 1810.13243), section 3. Arms: R warm restarts, K cooled trunk,
    S step decay, I pairs of seeds, R' forked restart.

    Parameters
    ----------
    name
        Name of this form of the rule.
    margin
        Smallest gain of accuracy that matters, as a fraction; the same for E0 and E3, which judge one quantity.
    """
    return Rule(
        name=name,
        version=1,
        claim="the reasons usually given for the success of warm restarts are not evidenced",
        parts=(
            _gain("E0", "S", "step decay", margin),
            _separation("E1", "separation", "weight space", "of the barrier between seeds"),
            _separation("E2", "function_separation", "function", "of the disagreement between seeds"),
            _gain("E3", "K", "a cooled trunk", margin),
        ),
        contradicted=all_of({"E1": "yes", "E2": "yes", "E3": "yes"}),
        supported=any_of({"E1": "no", "E3": "no"}),
        gate=Gate(
            "E0", "no", "no benefit to explain here",
            supported=all_of({"E1": "no"}), contradicted=all_of({"E1": "yes"}),
        ),
        controls=_CONTROLS,
        illustrations=_ILLUSTRATIONS,
    )  # fmt: skip

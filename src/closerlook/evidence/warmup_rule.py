"""The warmup rule: whether it is enough to warm up the deep layers, and whether it is needed."""

from closerlook.evidence.conditions import Precondition, Remark, all_of, any_of
from closerlook.evidence.questions import Illustration, Part
from closerlook.evidence.rule import Rule

_CLAIM = "warmup works by keeping the deeper layers from creating instability"
_INSTABILITY = 0.05  # accuracy
_HALF = 0.5  # of the distance between the failure boundaries of no warmup and of full warmup
_HOW = {
    "WD": "warming up the deep block alone",
    "WS": "warming up all but the deep block",
    "P": "warming up a random set of as many parameters",
    "FD": "freezing the deep block for as long as warmup lasts",
}
_FREEZING = Remark(
    all_of({"H(FD)": "no", "H(WD)": "yes"}),
    "freezing is a poor stand-in for warmup here: frozen, the deep block leaves less than half of the benefit (H(FD)); "
    "warmed up alone, it keeps more than half (H(WD))",
)
_ILLUSTRATIONS = (
    Illustration("FB", "accuracy", "FB:", "test accuracy with another block frozen for as long as warmup lasts"),
    Illustration("WB", "accuracy", "WB:", "test accuracy with another block warmed up alone"),
    Illustration("FD", "accuracy", "FD:", "test accuracy with the deep block frozen for another length"),
    Illustration("SB", "accuracy", "SB", "test accuracy with small batches and no warmup"),
    Illustration("C", "accuracy", "C", "test accuracy with clipped gradients and no warmup"),
    Illustration("HL", "accuracy", "HL", "test accuracy with a small learning rate of the deep block and no warmup"),
)
_BOUNDARIES = (
    *(
        Illustration(f"L({arm})", "boundary", arm, f"largest learning rate at which arm {arm} trains")
        for arm in ("N", "W", "WD", "WS", "P", "FD")
    ),
    Illustration("B(FD)", "boundary_share", "FD", "boundary share of the frozen deep block"),
)


def _instability() -> Part:
    return Part(
        "E0", "accuracy", "W", "N", _INSTABILITY,
        yes=f"warmup gains more than {100 * _INSTABILITY:g} points of accuracy over none",
        no=f"warmup gains less than {100 * _INSTABILITY:g} points of accuracy over none",
        unit="of the test images", all_or_nothing=True,
    )  # fmt: skip


def _benefit(arm: str) -> Part:
    """Accuracy above the middle between no warmup and full warmup: more than half of the benefit is there."""
    return Part(
        f"H({arm})", "accuracy", arm, ("N", "W"), 0.0,
        yes=f"{_HOW[arm]} keeps more than half of the benefit",
        no=f"{_HOW[arm]} keeps less than half of the benefit",
        unit="of the test images", all_or_nothing=True,
    )  # fmt: skip


def _boundary(arm: str) -> Part:
    """Share of the way, in log learning rate, that the failure boundary moves from no warmup to full warmup."""
    return Part(
        f"B({arm})", "boundary_share", arm, (), _HALF,
        yes=f"{_HOW[arm]} moves the failure boundary more than half as far as full warmup",
        no=f"{_HOW[arm]} moves the failure boundary less than half as far as full warmup",
        unit="of full warmup's shift",
    )  # fmt: skip


def _rule(name: str, letter: str, parts: tuple[Part, ...], illustrations: tuple[Illustration, ...]) -> Rule:
    deep, shallow, random = (f"{letter}({arm})" for arm in ("WD", "WS", "P"))
    return Rule(
        name=name,
        version=1,
        claim=_CLAIM,
        parts=(_instability(), *parts, *(_benefit(arm) for arm in ("WD", "WS", "P", "FD"))),
        preconditions=(Precondition("E0", "no instability to explain here"),),
        supported=all_of({deep: "yes", shallow: "no", random: "no"}),
        contradicted=any_of({deep: "no", shallow: "yes"}),
        illustrations=illustrations,
        remarks=(_FREEZING,),
    )  # fmt: skip


def warmup_rule() -> Rule:
    """Rule for the claim that warmup works by keeping the deeper layers from creating instability, version 1.

    The claim is that of Gotmare et al. 2019 (arXiv 1810.13243), section 4. Arms: N none, W all layers warmed up,
    WD the deep block alone, WS all but the deep block, P a random set of as many parameters, FD deep block frozen,
    FB:<block> another block frozen, SB small batches. Judged by how far each arm moves the failure boundary; what is
    left of the benefit in accuracy is shown beside it.
    """
    return _rule("warmup", "B", tuple(_boundary(arm) for arm in ("WD", "WS", "P")), _ILLUSTRATIONS + _BOUNDARIES)


def warmup_small_rule() -> Rule:
    """The same at one learning rate: judged by how much of warmup's benefit in accuracy each arm keeps, version 1."""
    return _rule("warmup-small", "H", (), _ILLUSTRATIONS)

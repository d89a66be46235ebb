"""The distillation rule: whether what a teacher shares goes mainly to the deeper layers of the student."""

from itertools import product

from closerlook.evidence.agreed import Agreed
from closerlook.evidence.conditions import Precondition, Remark, all_of, any_of
from closerlook.evidence.questions import Illustration, Part
from closerlook.evidence.rule import Rule

MEASURES = {"cca": "mean squared CCA", "cka": "linear CKA", "procrustes": "Procrustes similarity"}
_TAUGHT = 0.01  # accuracy
_DEPTH = 0.05  # of the room: what the hard-label student lacks to full similarity with the teacher
_SPECIFIC = 0.02  # of similarity
_BEYOND = 0.02  # of the same room
_RECOVERED = 0.10  # of the divergence to the teacher that distillation removes
_ROOM = "of the room to the teacher"
_PRECONDITIONS = (
    Precondition("E0", "the teacher has nothing to teach here"),
    Precondition("E1", "nothing was taken over from the teacher here"),
)
_REMARKS = (
    Remark(
        all_of({"C1": "yes", "C2": "no"}),
        "deep, but not specific to this teacher: in similarity the deeper half gains more (C1), but not more towards "
        "its own teacher than towards those of other seeds (C2)",
    ),
    Remark(
        all_of({"C1": "yes", "C3": "no"}),
        "deep, but any soft target does it: in similarity the deeper half gains more (C1), but so it does from soft "
        "targets that were permuted within a class (C3)",
    ),
)
_SHOWN = {
    "SP": "the student of permuted soft targets",
    "TL": "the hard-label student with its deeper half re-trained",
    "TE": "the hard-label student with its shallower half re-trained",
}
_STANDARD = {"LS": "the student of smoothed labels", "U": "the student of an untrained teacher"}
_WIDER = (
    Illustration("TL", "recovered_divergence", "TL:", "share of the divergence recovered behind another split"),
    Illustration("TE", "recovered_divergence", "TE:", "share of the divergence recovered before another split"),
    Illustration("D", "accuracy", "D:", "test accuracy of students distilled otherwise"),
)


def _outcomes() -> tuple[Part, ...]:
    """What must be there to explain, and what distillation gains in accuracy."""
    return (
        Part(
            "E0", "accuracy", "T", "H", _TAUGHT,
            yes="the teacher is more than 1 point of accuracy above the hard-label student",
            no="the teacher is not 1 point of accuracy above the hard-label student", unit="of the test images",
        ),
        Part(
            "E1", "divergence", "H", "D", 0.0,
            yes="distillation brings the predictions on test images closer to the teacher's",
            no="distillation brings the predictions on test images no closer to the teacher's", unit="nats",
        ),
        Part(
            "E2", "accuracy", "D", "H", 0.0,
            yes="the distilled student is more accurate than the hard-label student",
            no="the distilled student is less accurate than the hard-label student", unit="of the test images",
        ),
    )  # fmt: skip


def _recovery() -> Part:
    removed, other = "of the divergence that distillation removes", "re-training the other half"
    return Part(
        "C4", "recovered_divergence", "TL", "TE", _RECOVERED,
        yes=f"re-training the deeper half with the teacher recovers over {_RECOVERED:g} more {removed} than {other}",
        no=f"re-training the deeper half with the teacher does not recover {_RECOVERED:g} more {removed} than {other}",
        unit=removed,
    )  # fmt: skip


_CONTRASTS = (
    Agreed(
        "C1", tuple(f"C1[{measure}]" for measure in MEASURES),
        yes=f"distillation closes over {_DEPTH:g} more {_ROOM} in the deeper half of the layers than in the other",
        no=f"distillation does not close {_DEPTH:g} more {_ROOM} in the deeper half of the layers than in the other",
    ),
    Agreed(
        "C2", tuple(f"C2[{measure}]" for measure in MEASURES),
        yes=f"what is specific to the student's own teacher sits deeper, by over {_SPECIFIC:g} of similarity",
        no=f"what is specific to the student's own teacher does not sit deeper by {_SPECIFIC:g} of similarity",
    ),
    Agreed(
        "C3", tuple(f"C3[{measure}]" for measure in MEASURES),
        yes=f"soft targets favour the deeper half by over {_BEYOND:g} {_ROOM} more than permuted ones do",
        no=f"soft targets do not favour the deeper half by {_BEYOND:g} {_ROOM} more than permuted ones do",
    ),
)  # fmt: skip
_READ: dict[str, tuple[str, str | tuple[str, ...], float, str]] = {
    "C1": ("depth_contrast", (), _DEPTH, _ROOM),
    "C2": ("specific_contrast", "H", _SPECIFIC, "of similarity"),
    "C3": ("depth_contrast", "SP", _BEYOND, _ROOM),
}


def _in_each_measure(agreed: Agreed) -> tuple[Part, ...]:
    """The parts that read one contrast of similarities."""
    quantity, baseline, margin, unit = _READ[agreed.name]
    return tuple(
        Part(
            name, f"{quantity}:{measure}", "D", baseline, margin,
            yes=f"{agreed.yes}, in {words}", no=f"{agreed.no}, in {words}", unit=unit,
        )
        for name, (measure, words) in zip(agreed.parts, MEASURES.items(), strict=True)
    )  # fmt: skip


def _shown(arms: dict[str, str], contrasts: bool) -> tuple[Illustration, ...]:
    plain = {"accuracy": "test accuracy", "divergence": "divergence to the teacher, nats,"}
    similar = {f"depth_contrast:{measure}": f"depth contrast in {words}" for measure, words in MEASURES.items()}
    quantities = plain | similar if contrasts else plain
    return tuple(
        Illustration(f"{quantity}({arm})", quantity, arm, f"{what} of {who}")
        for (arm, who), (quantity, what) in product(arms.items(), quantities.items())
    )


def _rule(name: str, illustrations: tuple[Illustration, ...]) -> Rule:
    readings = (part for agreed in _CONTRASTS for part in _in_each_measure(agreed))
    return Rule(
        name=name,
        version=1,
        claim="the knowledge a teacher shares goes mainly to the deeper layers of the student",
        parts=(*_outcomes(), *readings, _recovery()),
        agreed=_CONTRASTS,
        preconditions=_PRECONDITIONS,
        supported=all_of({"C1": "yes", "C2": "yes", "C3": "yes", "C4": "yes"}),
        contradicted=any_of({"C1": "no", "C4": "no"}),
        illustrations=(*_shown(_SHOWN, contrasts=False), *illustrations),
        remarks=_REMARKS,
    )


def distillation_rule() -> Rule:
    """Rule for the claim that a teacher's knowledge goes mainly to the deeper layers of the student, version 1.

    The claim is that of Gotmare et al. 2019 (arXiv 1810.13243), section 5. Arms: T teacher, H hard-label student,
    D distilled student, SP soft targets permuted within a class, TL and TE the deeper and the shallower half of H
    re-trained with the teacher; LS smoothed labels and U untrained teacher are shown.
    """
    return _rule("distillation", (*_shown(_STANDARD, contrasts=True), *_WIDER))


def distillation_small_rule() -> Rule:
    """The same without what only the standard form shows, version 1."""
    return _rule("distillation-small", ())

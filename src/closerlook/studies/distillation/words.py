"""Arms and settings of the distillation study in words."""

from closerlook.studies.distillation.settings import Settings

ARMS = {
    "T": "T: teacher", "H": "H: hard labels", "D": "D: distilled", "SP": "SP: soft targets permuted in a class",
    "TL": "TL: deeper half re-trained", "TE": "TE: shallower half re-trained", "LS": "LS: smoothed labels, as soft",
    "U": "U: untrained teacher", "SD": "SD: taught by H", "DH": "DH: D's shallower half, deeper on labels",
    "HD": "HD: D's deeper half, shallower on labels",
}  # fmt: skip


def name_of(arm: str) -> str:
    """An arm in words."""
    kind, _, rest = arm.partition(":")
    other = {"TL": "layers after the first {} re-trained", "TE": "first {} layers re-trained", "D": "distilled, {}"}
    return ARMS.get(arm) or f"{kind}: {other[kind].format(rest)}"


def rows(s: Settings) -> tuple[tuple[str, str, str], ...]:
    """Name, value and how it was chosen."""
    size = f", {s.data.resolution}x{s.data.resolution} pixels" if s.data.resolution else ""
    o, soft = s.optimizer, "live, under augmentation" if s.augment else "fixed before the training"
    return (
        ("data", f"{s.data.name}{size}; teacher {s.taught.n_train} images, students {s.data.n_train}", s.chosen),
        ("teacher", _network(s.teacher.name, s.teacher.options, s.teacher_epochs), s.chosen),
        ("students", _network(s.student.name, s.student.options, s.epochs), s.chosen),
        (
            "optimizer", f"SGD, momentum {o.momentum}, LR {o.lr:g} {s.schedule.kind}, weight decay {o.weight_decay}",
            "fixed",
        ),
        ("batch", f"{s.batch_size}, {'crop and flip' if s.augment else 'no augmentation'}, {s.precision}", "fixed"),
        ("soft targets", f"temperature {s.temperature:g}, mixing {s.mixing:g}, {soft}", s.chosen),
        ("halves", f"the first {s.parts.half} of {len(s.parts.layers)} layers, and the others", "fixed"),
        (
            "similarity", f"{' and '.join(s.layers)} on {s.data.n_test or 'all'} test images; CCA along {s.directions} "
            "directions", "fixed",
        ),
    )  # fmt: skip


def _network(name: str, options: object, epochs: int) -> str:
    told = ", ".join(f"{key} {value}" for key, value in dict(options).items())  # type: ignore[call-overload]
    return f"{name}{', ' if told else ''}{told}; {epochs} epochs"

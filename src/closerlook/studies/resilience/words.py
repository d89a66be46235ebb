"""Modes and settings of the resilience study in words."""

from closerlook.studies.resilience.settings import Budget, Settings

NAMES = {
    "G": "G: reference", "G'": "G': the same again", "A": "A: large batch", "B": "B: Adam", "C": "C: linear decay",
    "D": "D: small weight decay", "E": "E: large initial weights", "F": "F: no augmentation",
}  # fmt: skip
# Every way of reading the path from G to G', by what is done and the role of its reading.
ALIGNED = {
    "raw": "aligned/{}/raw", "statistics estimated": "G'/{}/segment", "aligned": "aligned/{}/kept",
    "aligned, statistics estimated": "aligned/{}/segment", "aligned, repaired": "aligned/{}/repaired",
    "curve": "G'/{}/along", "curve, aligned": "aligned/{}/along",
}  # fmt: skip


def name_of(mode: str) -> str:
    """A mode in words; one that shares G's initial weights, or is narrow, says so."""
    plain, _, rest = mode.partition(" ")
    return NAMES[plain] + (f", {'initial weights of G' if rest == 'shared' else rest}" if rest else "")


def rows(s: Settings) -> tuple[tuple[str, str, str], ...]:
    """Name, value and how it was chosen."""
    d, o, by_design = s.data, s.optimizer, "by design of the mode"
    size = f", {d.resolution}x{d.resolution} pixels" if d.resolution else ""
    parts = f"validation {d.n_validation}, statistics {d.n_statistics}, training error read on {d.n_read}"
    return (
        ("data", f"{d.name}, {d.n_train} training images a seed{size}", "fixed"),
        ("parts", parts, "fixed"),
        ("network", _model(s.model.name, s.model.options), "fixed"),
        ("G", f"SGD, learning rate {o.lr:g}, momentum {o.momentum}, weight decay {o.weight_decay:g}", s.chosen),
        ("length", f"{s.epochs} epochs in batches of {s.batch_size}; LR x {_decay(s)}", "fixed"),
        ("augmentation", f"crop and flip, for curves as well; {s.precision}", "fixed"),
        ("A", f"batch {s.large_batch}, everything else as G", by_design),
        ("B", f"Adam, learning rate {s.adam.lr:g}", by_design),
        ("C", "learning rate falling linearly to 0", by_design),
        ("D", f"weight decay {s.small_decay:g}", by_design),
        ("E", f"initial weights {s.gain:g} times as large", by_design),
        ("F", "no augmentation", by_design),
        ("curves", f"chain with one bend; {_budget(s.curve)}", s.curves_chosen),
        (
            "narrow pair", f"{_model(s.narrow.name, s.narrow.options)}; curve of {_budget(s.narrow_budget)}",
            "to show a curve that does not close; it decides nothing",
        ),
    )  # fmt: skip


def _model(name: str, options: object) -> str:
    assert isinstance(options, dict)
    return ", ".join((name, *(f"{key} {value}" for key, value in options.items())))


def _decay(s: Settings) -> str:
    schedule = s.schedule
    return f"{schedule.gamma:g} at {', '.join(map(str, schedule.at))}"


def _budget(budget: Budget) -> str:
    read = f", read after {', '.join(map(str, budget.read_at))} as well" if budget.read_at else ""
    o = budget.optimizer
    return f"{budget.epochs} epochs, largest LR {o.lr:g}, weight decay on the path {o.weight_decay:g}{read}"

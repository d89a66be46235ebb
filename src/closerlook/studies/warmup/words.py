"""The settings of the warmup study in words."""

from closerlook.studies.warmup.settings import Settings


def rows(s: Settings) -> tuple[tuple[str, str, str], ...]:
    """Name, value and how it was chosen."""
    d, o = s.data, s.optimizer
    size = f", {d.resolution}x{d.resolution} pixels" if d.resolution else ""
    model = s.network.model
    options = ", ".join(f"{name} {value}" for name, value in model.options.items())
    blocks = "; ".join(f"{name}: {' '.join(patterns)}" for name, patterns in s.network.blocks.items())
    return (
        ("data", f"{d.name}, {d.n_train} training images a seed{size}", "fixed"),
        ("network", f"{model.name}, {options}", "fixed"),
        ("blocks, shallow to deep", f"{blocks}; the deep block is {s.network.deep}", "fixed"),
        ("optimizer", f"SGD, momentum {o.momentum}, weight decay {o.weight_decay}", "fixed"),
        ("learning rate", f"{o.lr:g}, then {s.after.kind.replace('_', ' ')}", s.chosen),
        ("batch", f"{s.batch_size}, {'crop and flip' if s.augment else 'no augmentation'}, {s.precision}", "fixed"),
        ("warmup", f"{s.ramp_steps} steps from a rate of 0; {s.epochs} epochs in all", "fixed"),
        ("small batch", f"batch {s.small_batch}, learning rate {s.small_rate:g}", "fixed; it decides nothing"),
        (
            "similarity", f"{' and '.join(s.layers)} on {d.n_test or 'all'} test images; CCA along {s.directions} "
            f"directions; early step {s.early}", "fixed; it decides nothing",
        ),
    )  # fmt: skip

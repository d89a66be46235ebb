"""From what a user names to the settings of a diagnosis: the network, the data, sensible numbers for the rest."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from closerlook.diagnosis.blocks import Blocks, blocks_of_depth
from closerlook.diagnosis.settings import Settings
from closerlook.errors import UsageError
from closerlook.runs.recipe import DataSpec, ModelSpec, OptimizerSpec
from closerlook.steps.setting import network, source
from closerlook.steps.sourced import with_source
from closerlook.weights import named
from closerlook.weights.blocks import blocks_of

READ, VALIDATION = 200, 2000  # images that carry the sharpness, and at most for the validation


def settings_for(
    model: str,
    data: str,
    *,
    lr: float,
    batch: int,
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    steps: int = 300,
    seeds: Sequence[int] = (0, 1, 2),
    lengths: Sequence[int] | None = None,
    blocks: Mapping[str, str | Sequence[str]] | None = None,
    clip: float = 1.0,
    model_options: Mapping[str, Any] | None = None,
    resolution: int | None = None,
) -> Settings:
    """The settings of `diagnose_warmup`; nothing is trained.

    Raises
    ------
    UsageError
        Unknown network or data, a rate or number that is not positive, lengths that do not lie within the run, a block
        without parameters.
    """
    _check(lr, batch, steps, seeds, clip)
    spec, epochs = _data(data, resolution, batch, steps)
    chosen = with_source(ModelSpec(name=model, options=dict(model_options or {})))
    built = network(chosen, spec, seed=0)
    found = blocks_of_depth(built) if blocks is None else _named(built, blocks)
    return Settings(
        data=spec, model=chosen, batch_size=batch, epochs=epochs, seeds=tuple(seeds), clip=clip, blocks=found,
        optimizer=OptimizerSpec(name=optimizer, lr=lr, momentum=momentum if optimizer == "sgd" else 0.0,
                                weight_decay=weight_decay),
        lengths=_lengths(lengths, epochs * -(-spec.n_train // batch)),
    )  # fmt: skip


def _check(lr: float, batch: int, steps: int, seeds: Sequence[int], clip: float) -> None:
    if not lr > 0 or batch < 1 or steps < 1 or not clip > 0:
        raise UsageError(f"lr={lr}, batch={batch}, steps={steps} and clip={clip} must all be above 0")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError("a diagnosis needs at least one seed, each named once")


def _data(name: str, resolution: int | None, batch: int, steps: int) -> tuple[DataSpec, int]:
    """The data, no more of them than the steps take; and the whole epochs in which at least so many steps are."""
    loaded = source(name, resolution)
    own = loaded.validation is not None
    have = len(loaded.train_targets)
    most = len(loaded.validation.targets) if loaded.validation is not None else max(1, have // 5)
    n_validation = min(VALIDATION, most)
    n_train = min(have if own else have - n_validation, batch * steps)
    spec = DataSpec(
        name=name, resolution=resolution, n_train=n_train, n_validation=n_validation, n_statistics=0,
        n_read=min(READ, n_train), seed=0,
    )  # fmt: skip
    return with_source(spec), -(-steps // -(-n_train // batch))


def _lengths(lengths: Sequence[int] | None, steps: int) -> tuple[int, ...]:
    usual = [max(1, steps // part) for part in (12, 6, 3)]
    found = sorted(set(usual if lengths is None else lengths))
    if not found or found[0] < 1 or found[-1] >= steps:
        raise UsageError(f"lengths of warmup lie between 1 and the {steps} steps of the run, not at {found}")
    return tuple(found)


def _named(model: nn.Module, blocks: Mapping[str, str | Sequence[str]]) -> Blocks:
    blocks_of([name for name, value in named(model).parameters.items() if value.requires_grad], blocks)
    return {name: (own,) if isinstance(own, str) else tuple(own) for name, own in blocks.items()}

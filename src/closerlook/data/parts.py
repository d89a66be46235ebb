"""A source split into the parts of a study: trained on, read, for norm statistics, validation, test."""

from typing import NamedTuple

from torch import Tensor

from closerlook.data.seeds import permutation
from closerlook.data.source import Pair, Source
from closerlook.errors import UsageError


class Parts(NamedTuple):
    """The parts of a split, each ``(inputs [m, ...], targets [m])``, ready for a model."""

    train: Pair
    read: Pair
    statistics: Pair
    validation: Pair
    test: Pair


def split(
    source: Source, *, n_train: int, n_validation: int, n_statistics: int, n_read: int | None = None, seed: int
) -> Parts:
    """Seeded parts of a source's official training images, and its official test images.

    With p the permutation of the training images drawn from `seed`: `train` is the first n_train of p, `statistics` the
    last n_statistics of `train` (for batch-norm statistics), `read` the first n_read of the others (default: all of
    them), on which the training loss is read. A loss is so never read on images that the statistics come from.
    `validation` is the last n_validation of p, the same images whatever n_train is; a source with a validation part of
    its own gives n_validation of that one. `test` is whole.

    Raises
    ------
    UsageError
        A part is larger than what is left for it, or `train` or `read` is empty.

    Examples
    --------
    >>> from closerlook.data import load
    >>> parts = split(load("digits"), n_train=200, n_validation=100, n_statistics=50, seed=0)
    >>> [len(part.targets) for part in parts]
    [200, 150, 50, 100, 360]
    """
    _check(source, n_train, n_validation, n_statistics, n_read)
    order = permutation(len(source.train_targets), seed)
    train = order[:n_train]
    unseen_by_norms = train[: n_train - n_statistics]
    return Parts(
        train=_pick(source, train),
        read=_pick(source, unseen_by_norms[:n_read]),
        statistics=_pick(source, train[n_train - n_statistics :]),
        validation=_validation(source, order, n_validation, seed),
        test=Pair(source.prepare(source.test_inputs), source.test_targets),
    )


def _pick(source: Source, chosen: Tensor) -> Pair:
    return Pair(source.prepare(source.train_inputs[chosen]), source.train_targets[chosen])


def _validation(source: Source, order: Tensor, n: int, seed: int) -> Pair:
    if source.validation is None:
        return _pick(source, order[len(order) - n :])
    chosen = permutation(len(source.validation.targets), seed)[:n]
    return Pair(source.prepare(source.validation.inputs[chosen]), source.validation.targets[chosen])


def _check(source: Source, n_train: int, n_validation: int, n_statistics: int, n_read: int | None) -> None:
    sizes = {"n_train": n_train, "n_validation": n_validation, "n_statistics": n_statistics, "n_read": n_read or 0}
    negative = [name for name, size in sizes.items() if size < 0]
    if negative:
        raise UsageError(f"{', '.join(negative)} must not be negative")
    have, own = len(source.train_targets), source.validation
    if own is not None and n_validation > len(own.targets):
        raise UsageError(f"{source.name} has {len(own.targets)} validation examples; n_validation={n_validation}")
    wanted = n_train + (n_validation if own is None else 0)
    if wanted > have:
        numbers = f"n_train={n_train}" + (f" and n_validation={n_validation}" if own is None else "")
        raise UsageError(f"{source.name} has {have} training examples; {numbers} need {wanted}")
    left, need = n_train - n_statistics, 1 if n_read is None else n_read
    if left < need or need == 0:
        raise UsageError(
            f"n_train={n_train} less n_statistics={n_statistics} leaves {left} examples to read the loss on; "
            f"n_read={n_read} does not fit: it is at least 1 and at most that"
        )

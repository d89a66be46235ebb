"""Whether two passes over a loader give the same examples, and two calls of a model the same outputs.

Without that, the difference of two points of weight space is in part the difference of two draws. Global
generators are put back after every pass, so a shuffled loader can repeat by accident: the probe seeds its two
passes differently on purpose.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from closerlook.batches import Feed, Loader, batches_of, copied, generators_kept, identical, seed_all
from closerlook.errors import LoaderError
from closerlook.evaluation.steady import check_steady

_GLANCE = 3  # batches per pass: what is random shows at once
Batches = Sequence[dict[str, Any]]


def check_repeatable(model: nn.Module, loader: Loader, feed: Feed, name: str = "loader") -> None:
    """Refuse a loader or a model that gives other numbers the second time.

    The first batches are taken twice, under two seeds of every generator (PyTorch's, numpy's, Python's, the
    loader's own), and the first one goes through the model twice. Everything comes back as it was.

    Parameters
    ----------
    model
        On its device, in eval mode.
    name
        The split's name, for the messages.

    Raises
    ------
    LoaderError
        Random augmentation, shuffling (with drop_last or with replacement), passes of different lengths, noise in
        eval mode, a model that keeps a state, a batch function that breaks its contract; a one-shot or empty loader.

    Examples
    --------
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> check_repeatable(nn.Linear(4, 4).eval(), data, Feed(torch.device("cpu")), "train")
    """
    n, first = 0, []
    for batch in _beginning(loader, name, seed=1):
        n = n or check_steady(model, batch, feed, name)
        first.append(copied(batch))
    second = [copied(batch) for batch in _beginning(loader, name, seed=2)]
    cause = _cause(first, second, n, loader)
    if cause is not None:
        raise LoaderError(f"{name} {cause}; losses at two points would not be of the same examples")


def _beginning(loader: Loader, name: str, seed: int) -> Iterator[Any]:
    with generators_kept(loader), closing(batches_of(loader, name)) as batches:
        seed_all(seed, loader)
        yield from islice(batches, _GLANCE)


def _cause(first: Batches, second: Batches, n: int, loader: Loader) -> str | None:
    per_example = [path for path, value in first[0].items() if isinstance(value, Tensor) and value.shape[:1] == (n,)]
    counts = [[_count(batch, per_example) for batch in batches] for batches in (first, second)]
    if counts[0] != counts[1]:
        return (
            f"begins with batches of {_listed(counts[0])} examples in one pass and {_listed(counts[1])} in the next: "
            "its passes have different lengths. Let every pass give the same batches, for example a list of one pass"
        )
    pairs = list(zip(first, second, strict=True))
    changed = {path for a, b in pairs for path in {*a, *b} if not identical(a.get(path), b.get(path))}
    if not changed:
        return None
    moved = [path for path in per_example if path in changed]
    if any(_same_rows(first, second, path) for path in moved):
        return f"gives the same examples in another order in each pass: it shuffles. {_unshuffled(loader)}"
    kept = [path for path in per_example if path not in changed and len(_rows(first, path)) > 1]
    if kept:
        return (
            f"gives other {_names(changed)} for the same {_names(kept)} in each pass: random augmentation. "
            "Use the transforms of evaluation, without random crops, flips or noise"
        )
    if _random_sampler(loader) or any(_numbers_classes(first[0][path]) for path in moved):
        return f"gives other examples in each pass: it shuffles. {_unshuffled(loader)}"
    return (
        f"gives other {_names(changed)} in each pass: it shuffles or augments at random. Turn both off "
        "(shuffle=False, the transforms of evaluation)"
    )


def _count(batch: dict[str, Any], paths: Sequence[str]) -> int:
    return max((len(batch[path]) for path in paths if path in batch), default=0)


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))


def _rows(batches: Batches, path: str) -> Counter[bytes]:
    rows: Counter[bytes] = Counter()
    for batch in batches:
        value = batch.get(path)
        if isinstance(value, Tensor) and value.numel():
            rows.update(row.tobytes() for row in value.contiguous().view(torch.uint8).reshape(len(value), -1).numpy())
    return rows


def _same_rows(first: Batches, second: Batches, path: str) -> bool:
    return _rows(first, path) == _rows(second, path)


def _numbers_classes(value: Tensor) -> bool:
    return value.ndim == 1 and not value.is_floating_point()


def _samplers(loader: Loader) -> list[Any]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    return [getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)]


def _random_sampler(loader: Loader) -> bool:
    return any(isinstance(sampler, RandomSampler) or _replaces(sampler) for sampler in _samplers(loader))


def _replaces(sampler: Any) -> bool:
    return getattr(sampler, "replacement", False) is True


def _unshuffled(loader: Loader) -> str:
    if any(map(_replaces, _samplers(loader))):
        return "It draws with replacement, so examples are left out or repeated: pass shuffle=False and no sampler"
    if any(getattr(owner, "drop_last", False) for owner in (loader, *_samplers(loader))):
        return "With drop_last it also leaves out others each time: pass shuffle=False and drop_last=False"
    return "Pass shuffle=False"


def _names(paths: Any) -> str:
    return ", ".join(sorted(paths)[:3])

"""More bends where a chain still climbs: the rule by which AutoNEB inserts pivots (Draxler et al. 2018, 1803.00885)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from closerlook.batches import Loader
from closerlook.errors import UsageError
from closerlook.landscape.connect import connect
from closerlook.landscape.intervals import Array
from closerlook.landscape.profile import profile
from closerlook.landscape.reader import BatchStats
from closerlook.landscape.subspace import Subspace, polychain
from closerlook.schedules import Constant

_OWN = {"lr", "epochs", "start", "kind", "bends"}  # settings of the training that follow from chain and cycles
_SHARED = ("params", "batch_fn", "device", "memory_format")  # settings that training and reading both have


def refine_chain(
    model: nn.Module,
    chain: Subspace,
    loader: Loader,
    read: Loader,
    *,
    cycles: Sequence[tuple[int, float]],
    share: float = 0.2,
    most: int = 2,
    between: int = 9,
    batch_stats: BatchStats = "recompute",
    stats_loader: Loader | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    **settings: Any,
) -> Subspace:
    """A chain with more pivots where its loss is high: read, insert, train on, once per cycle.

    Before each cycle the loss is read along every segment. Two things make a segment high: what its loss rises above
    the straight line between the losses of its two pivots, and what one of these pivots itself lies above the mean of
    its two neighbours. Where that is more than `share` of the range of all losses read, the segment gets a pivot, at
    its highest place above the line or, where a pivot made it high, in its middle; the `most` highest segments do. The
    path is the same then, and all inner pivots are trained on.

    The first is AutoNEB's rule; the training is not AutoNEB's. AutoNEB moves pivots across the path, each by the
    gradient at itself, and springs keep their distances, so that pivots lie low and what is high lies between them.
    `connect` minimises the *expected* loss over t: it sees what lies between pivots, lets them slide along the path,
    and leaves a bend high where its surroundings gain by it, as outside a curved valley; so the second is needed. A new
    pivot also gives its surroundings a larger share of t, since every segment has the same. Train few bends to the end
    first: each of many gets a smaller share of the gradient, and where one bend is enough more of them learn slower.

    Parameters
    ----------
    chain
        A line or a polygonal chain; the ends stay fixed.
    loader, read
        Batches that train the chain, and batches on which its loss is read, the same ones in each pass.
    cycles
        ``(epochs, lr)`` of each cycle; the rate is constant within one unless `settings` has another ``schedule``.
    share
        A fifth in the paper, of the range along the path (a tenth, of the range of the pivots, in its code).
    most
        At most so many new pivots per cycle.
    between
        Points that are read on each segment, besides its ends.
    batch_stats, stats_loader
        As in `closerlook.profile`.
    seed
        Of the first cycle; each later one has the next.
    out
        Folder to resume from: the same call goes on there.
    settings
        Those of `closerlook.connect`; the readings share what they have too.

    Returns
    -------
    Subspace
        The chain. The rows of ``.history`` say their ``cycle``, its ``pivots`` and the t at which it ``inserted`` some;
        a training that diverged ends it.

    Raises
    ------
    UsageError
        A Bezier curve, no cycle, or a setting below its least value; and what `connect` and `profile` refuse.

    Examples
    --------
    >>> import torch
    >>> data = [(torch.eye(4), torch.arange(4))]
    >>> chain = polychain([nn.Linear(4, 4), nn.Linear(4, 4)])
    >>> found = refine_chain(nn.Linear(4, 4), chain, data, data, share=0.0, cycles=[(1, 0.1), (1, 0.01)])
    >>> found.kind, [row["cycle"] for row in found.history], len(found.points) >= 2
    ('polychain', [...], True)
    """
    _check(chain, cycles, share, most, between)
    if taken := _OWN & settings.keys():
        raise UsageError(f"the chain and its cycles say {', '.join(sorted(taken))} already; leave it out")
    shared = {name: settings[name] for name in _SHARED if name in settings}
    settings = {"schedule": Constant(), **settings}
    history: list[dict[str, Any]] = []
    for cycle, (epochs, lr) in enumerate(cycles):
        folders = [None if out is None else Path(out) / f"cycle-{cycle}-{part}" for part in ("read", "train")]
        losses = profile(
            model, chain, read, (len(chain.points) - 1) * (between + 1) + 1, batch_stats=batch_stats,
            stats_loader=stats_loader, out=folders[0], **shared,
        ).metric("train", "loss")  # fmt: skip
        chain, inserted = with_pivots(chain, places(losses, between, share, most))
        first, *inner, last = chain.points
        if not inner:
            break  # a straight line on which nothing is high
        chain = connect(
            model, first, last, loader, "polychain", len(inner), start=inner, epochs=epochs, lr=lr,
            seed=seed + cycle, out=folders[1], **settings,
        )  # fmt: skip
        history += [{"cycle": cycle, "pivots": len(inner), "inserted": inserted, **row} for row in chain.history]
        if "diverged" in history[-1]:
            break
    return replace(chain, history=tuple(history), snapshots={})


def places(losses: Array, between: int, share: float, most: int) -> list[float]:
    """Where new pivots go, in segments from the first pivot: 1.25 is a quarter on the way from the second to the third.

    `losses` [(K - 1) (between + 1) + 1] are read equally spaced on every segment, pivots included.

    Examples
    --------
    >>> places(np.array([0.0, 1.2, 1.5, 1.0, 1.0]), between=1, share=0.2, most=1)
    [0.5]
    """
    width = between + 1
    rows = np.stack([losses[start : start + width + 1] for start in range(0, len(losses) - 1, width)])
    alpha = np.linspace(0, 1, width + 1)
    above_line = (rows - rows[:, :1] * (1 - alpha) - rows[:, -1:] * alpha)[:, 1:-1]
    pivots = losses[::width]
    above_neighbours = np.pad(pivots[1:-1] - (pivots[:-2] + pivots[2:]) / 2, 1)
    inside, beside = above_line.max(1), np.maximum(above_neighbours[:-1], above_neighbours[1:])
    heights = np.maximum(inside, beside)
    where = np.where(inside >= beside, (above_line.argmax(1) + 1) / width, 0.5)
    chosen = [k for k in np.argsort(-heights, kind="stable")[:most] if heights[k] > share * np.ptp(losses)]
    return [float(k + where[k]) for k in sorted(chosen)]


def with_pivots(chain: Subspace, where: Sequence[float]) -> tuple[Subspace, list[float]]:
    """The same path with a pivot at each of these places, and their t on the chain as it was.

    Examples
    --------
    >>> import torch
    >>> chain, t = with_pivots(polychain([torch.zeros(1), torch.ones(1), torch.zeros(1)]), [0.5])
    >>> [point.vector.item() for point in chain.points], t
    ([0.0, 0.5, 1.0, 0.0], [0.25])
    """
    segments = len(chain.points) - 1
    new = [(place, chain.at(place / segments)) for place in where]
    points = sorted([*enumerate(chain.points), *new], key=lambda pair: pair[0])
    return polychain([point for _, point in points]), [place / segments for place in where]


def _check(chain: Subspace, cycles: Sequence[tuple[int, float]], share: float, most: int, between: int) -> None:
    if chain.kind not in ("line", "polychain"):
        raise UsageError(f"a {chain.kind} does not stay the same with one more point; refine a line or a chain")
    if not cycles or any(len(cycle) != 2 for cycle in cycles):
        raise UsageError(
            "there is no cycle to train, or one is no pair; give (epochs, lr) of each, such as "
            "cycles=[(10, 0.1), (10, 0.01)]"
        )
    if share < 0 or most < 1 or between < 1:
        raise UsageError(f"share is at least 0, most and between at least 1; not {share:g}, {most} and {between}")

"""Modes, bends and points of curves in two dimensions, from their inner products alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from closerlook.errors import PointMissingError
from closerlook.landscape import polychain
from closerlook.runs.recipe import ProfileRecipe
from closerlook.steps.points import Resolver
from closerlook.steps.setting import network
from closerlook.studies.plan import Results
from closerlook.studies.resilience.settings import MODES
from closerlook.weights import Point, gram

Array = NDArray[np.float64]
_ON_CURVE = (np.arange(8) + 0.5) / 8  # neither end nor bend: these are shown themselves


@dataclass(frozen=True)
class Embedding:
    """Coordinates [1, 2] of the networks `modes` and of the `bends`, and [m, 2] of the curve to every mode.

    A curve runs from G over its bend to a mode. `explained` are the shares of the variance along the two axes, for
    principal components.
    """

    modes: dict[str, Array]
    bends: dict[str, Array]
    curves: dict[str, Array]
    explained: tuple[float, float] | None = None


def embeddings(results: Results, seed: int) -> tuple[Embedding, Embedding] | None:
    """Principal components, which keep distances as well as two axes can, and t-SNE, which keeps neighbours only.

    None where fewer than two curves are there.
    """
    found = _inner(results, seed)
    if found is None:
        return None
    inner, rows = found
    every = np.concatenate(list(rows.values()))
    scores, shares = principal(inner, every)
    settings = {"metric": "precomputed", "init": "random", "perplexity": min(10, len(every) // 4), "random_state": 0}
    near = TSNE(**settings).fit_transform(distances(inner, every))
    return _named(rows, scores, shares), _named(rows, np.asarray(near, dtype=float), None)


def principal(inner: Array, every: Array) -> tuple[Array, tuple[float, float]]:
    """First two principal components of k points, the shares of the variance that they hold, and mixtures on them.

    `inner` [k, k] are inner products of the points about any origin; rows of `every` [m, k] sum to 1.
    """
    centred = inner - inner.mean(0) - inner.mean(1)[:, None] + inner.mean()
    values, vectors = np.linalg.eigh(centred)
    one, two = values[::-1][:2]
    scores = (every - 1 / len(inner)) @ centred @ vectors[:, ::-1][:, :2] / np.sqrt([one, two])
    return scores, (float(one / values.sum()), float(two / values.sum()))


def distances(inner: Array, every: Array) -> Array:
    """Distances [m, m] between mixtures of points: the root of ``(c - d)' inner (c - d)``."""
    squared = np.einsum("mi,ij,mj->m", every, inner, every)
    return np.sqrt(np.maximum(squared[:, None] + squared - 2 * every @ inner @ every.T, 0.0))


def _inner(results: Results, seed: int) -> tuple[Array, dict[tuple[str, str], Array]] | None:
    """Inner products of all points about G, and the coefficients of all that is shown."""
    points: dict[str, Point] = {}
    kept = []
    for mode in MODES:
        path = results.plan.roles[f"{mode}/{seed}/along"]
        assert isinstance(path, ProfileRecipe)
        find = Resolver(network(path.model, path.data, seed=0), results.folder(f"{mode}/{seed}/along"))
        try:
            reference, bend, end = map(find.point, path.points)
        except PointMissingError:
            continue
        points |= {"G": reference, mode: end, f"bend {mode}": bend}
        kept.append(mode)
    if len(kept) < 2:
        return None
    names = list(points)
    origin = points["G"].vector
    inner = np.zeros((len(names), len(names)))
    inner[1:, 1:] = gram([points[name].vector for name in names[1:]], origin=origin).numpy()
    unit = dict(zip(names, np.eye(len(names)), strict=True))
    rows = {("mode", name): unit[name][None] for name in ("G", *kept)}
    rows |= {("bend", mode): unit[f"bend {mode}"][None] for mode in kept}
    hats = polychain([points["G"], points["G"], points["G"]]).coefficients(_ON_CURVE)
    rows |= {("curve", mode): hats @ np.stack([unit["G"], unit[f"bend {mode}"], unit[mode]]) for mode in kept}
    return inner, rows


def _named(rows: dict[tuple[str, str], Array], scores: Array, explained: tuple[float, float] | None) -> Embedding:
    ends = np.cumsum([len(row) for row in rows.values()])
    parts = dict(zip(rows, np.split(scores, ends[:-1]), strict=True))
    of = {kind: {name: part for (k, name), part in parts.items() if k == kind} for kind in ("mode", "bend", "curve")}
    half = len(_ON_CURVE) // 2
    curves = {
        mode: np.concatenate([of["mode"]["G"], part[:half], of["bend"][mode], part[half:], of["mode"][mode]])
        for mode, part in of["curve"].items()
    }
    return Embedding(of["mode"], of["bend"], curves, explained)

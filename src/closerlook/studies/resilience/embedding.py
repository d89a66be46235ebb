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
_ON_CURVE = np.linspace(0, 1, 9)


@dataclass(frozen=True)
class Embedding:
    """Coordinates [n, 2] of the points named by `modes` and `bends`, and of those on every curve.

    `explained` are the shares of the variance along the two axes, for principal components.
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
    names, inner, rows = found
    centred = inner - inner.mean(0) - inner.mean(1)[:, None] + inner.mean()
    values, vectors = np.linalg.eigh(centred)
    top = values[::-1][:2]
    axes = vectors[:, ::-1][:, :2] / np.sqrt(top)
    # Rows of coefficients sum to 1, so that the centre falls out of every difference.
    every = np.concatenate(list(rows.values()))
    scores = (every - 1 / len(names)) @ centred @ axes
    squared = np.einsum("mi,ij,mj->m", every, centred, every)
    apart = np.sqrt(np.maximum(squared[:, None] + squared - 2 * every @ centred @ every.T, 0.0))
    near = TSNE(
        metric="precomputed", init="random", perplexity=min(10, len(every) // 4), random_state=0
    ).fit_transform(apart)  # fmt: skip
    shares = (float(top[0] / values.sum()), float(top[1] / values.sum()))
    return _named(rows, scores, shares), _named(rows, np.asarray(near, dtype=float), None)


def _inner(results: Results, seed: int) -> tuple[list[str], Array, dict[tuple[str, str], Array]] | None:
    """Names of the points, their inner products about the first, and the coefficients of all that is shown."""
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
    return names, inner, rows


def _named(rows: dict[tuple[str, str], Array], scores: Array, explained: tuple[float, float] | None) -> Embedding:
    ends = np.cumsum([len(row) for row in rows.values()])
    parts = dict(zip(rows, np.split(scores, ends[:-1]), strict=True))
    of = {kind: {name: part for (k, name), part in parts.items() if k == kind} for kind in ("mode", "bend", "curve")}
    return Embedding(of["mode"], of["bend"], of["curve"], explained)

"""Examples' values by name (``"train_loss"``, ``"train_accuracy"``), their means, and the error beside an accuracy."""

from collections.abc import Mapping, Sequence

import numpy as np

HIGHER_IS_WORSE = {"loss": True, "error": True, "accuracy": False}


def is_loss(name: str) -> bool:
    """Whether a name such as ``"train_loss"`` is that of a loss."""
    return name.endswith("_loss")


def with_error(arrays: Mapping[str, np.ndarray], flip: bool = True) -> dict[str, np.ndarray]:
    """The arrays, and beside every accuracy its error, 1 - accuracy; without `flip` a spread, which is the same."""
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        found[name] = array
        if name.endswith("_accuracy"):
            found[f"{name.removesuffix('accuracy')}error"] = 1 - array if flip else array
    return found


def means(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean metrics of examples' values, with the error beside the accuracy."""
    return {name: float(array) for name, array in with_error({k: v.mean() for k, v in arrays.items()}).items()}


def largest_differences(one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The largest absolute difference of each metric over pairs of readings."""
    return {name: max(abs(a[name] - b[name]) for a, b in zip(one, other, strict=True)) for name in one[0]}


def covariance_of(matrix: np.ndarray) -> np.ndarray:
    """Covariance [m, m] of one example's values at m points, from values [m, n]; infinite for a single example."""
    m, n = matrix.shape
    return np.cov(matrix).reshape(m, m) if n > 1 else np.full((m, m), np.inf)

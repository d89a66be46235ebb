"""Probes of one layer, by scikit-learn's solvers: multinomial logistic regression, or ridge regression."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from closerlook.agreement.intervals import Estimate, jackknife, wilson

Array = NDArray[np.float64]
FOLDS = 3
STRENGTHS = tuple(10.0**power for power in range(-1, 5))  # of the penalty, |w|^2 / 2 times this
ALPHAS = tuple(10.0**power for power in range(-3, 6))  # |w|^2 times this


@dataclass(frozen=True, eq=False)
class Split:
    """Features [n, p] and targets of the training and of the test part."""

    x: Array
    y: NDArray[np.generic]
    x_test: Array
    y_test: NDArray[np.generic]


@dataclass(frozen=True)
class Fitted:
    """How well a probe does on the test part, and what it was fitted with."""

    score: Estimate
    train: float
    penalty: float
    agreement: Estimate | None = None
    converged: bool = True


def classify(split: Split, level: float, seed: int) -> Fitted:
    """Accuracy of a logistic regression on standardised features; its penalty is chosen by three-fold validation."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": [1 / strength for strength in STRENGTHS]},
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        search.fit(split.x, split.y)
    hits = search.predict(split.x_test) == split.y_test
    return Fitted(
        wilson(int(hits.sum()), len(hits), level), float(search.score(split.x, split.y)),
        1 / search.best_params_["logisticregression__C"],
        converged=not any(issubclass(each.category, ConvergenceWarning) for each in caught),
    )  # fmt: skip


def regress(split: Split, level: float, labels: bool) -> Fitted:
    """R^2 of a ridge regression on standardised features; its penalty is chosen by leaving one example out.

    With `labels` the largest output is a label too, and how often it is the target's is told.
    """
    probe = make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS)).fit(split.x, split.y)
    found, y = probe.predict(split.x_test).reshape(len(split.y_test), -1), np.asarray(split.y_test, dtype=np.float64)
    columns = {"error": ((found - y) ** 2).sum(1), "spread": ((y - y.mean(0)) ** 2).sum(1)}
    with np.errstate(invalid="ignore", divide="ignore"):
        score = jackknife(columns, lambda sums: {"r2": 1 - sums["error"] / sums["spread"]}, level)["r2"]
    same = int((found.argmax(1) == y.argmax(1)).sum())
    agreement = wilson(same, len(y), level) if labels else None
    fitted = probe.predict(split.x).reshape(len(split.y), -1)
    train = float(r2_score(split.y, fitted, multioutput="variance_weighted"))
    return Fitted(score, train, float(probe[-1].alpha_), agreement)

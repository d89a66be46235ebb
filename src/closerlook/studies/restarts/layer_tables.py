"""Exploratory tables: the similarity of each layer at the early floor with itself at the late one."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from closerlook.report import Table
from closerlook.studies.compared import Array, Compared, each, key, named, span
from closerlook.studies.plan import Results
from closerlook.studies.restarts.compared import ACROSS, LATE, compared
from closerlook.studies.restarts.comparisons import WITHIN
from closerlook.studies.restarts.representations import ROLES

_COLUMNS = (
    "layer", "units", "directions", *WITHIN, ACROSS, LATE, "R, untrained", "chance",
    "R \N{MINUS SIGN} K, above chance",
)  # fmt: skip


def tables(results: Results) -> Iterator[Table]:
    """Per measure one row a layer: every seed of each arm, what they are to be held against, and R - K."""
    early, late = results.plan.about["floors"][-2:]
    for role in ROLES:
        found = compared(results, role)
        for measure in found.any.measures if found else ():
            assert found is not None
            title = f"Exploratory: {named(measure)}, floor {early} against floor {late}"
            yield Table(
                f"{role}-{key(measure)}", title, _COLUMNS,
                tuple(_row(found, measure, place) for place in range(len(found.layers))),
                "Arms: one number for each seed. Others: mean (lowest to highest) of R's pairs of seeds, of R's early "
                f"floors against untrained networks, of chance levels. {found.carried(measure)}",
            )  # fmt: skip


def _row(found: Compared, measure: str, place: int) -> tuple[Any, ...]:
    def at(name: str, show: str = "value") -> Array:
        return found.same(name, measure, show)[:, place]

    difference = at("R", "corrected") - at("K", "corrected")
    return (
        found.layers[place], found.any.side_a[place].width, span(*found.directions()[place], digits="d"),
        *(each(at(arm)) for arm in WITHIN), _range(at(ACROSS)), _range(at(LATE)), _range(at("R", "random")),
        _range(np.concatenate([at(arm, "chance") for arm in WITHIN])), each(difference),
    )  # fmt: skip


def _range(values: Array) -> str | None:
    kept = values[np.isfinite(values)]
    if not len(kept):
        return None
    ends = span(kept.min(), kept.max())
    return f"{kept.mean():.3f} ({ends})" if " " in ends else ends

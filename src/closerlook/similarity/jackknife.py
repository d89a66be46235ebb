"""How far a similarity would move with other examples: the delete-a-group jackknife (Kott 2001, J. Off. Stat. 17)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from closerlook.errors import TooFewExamplesError, UsageError
from closerlook.similarity.stream import Stream

M = TypeVar("M", bound=Stream)
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Interval:
    """Numbers or arrays: the value, its bias of order 1/n, its standard error, and an interval around value - bias."""

    value: Array
    bias: Array
    error: Array
    low: Array
    high: Array


def jackknife(m: M, measure: Callable[[M], ArrayLike], *, level: float = 0.95) -> Interval:
    """Interval over examples of any number read from moments that were kept in groups.

    With v_i the number without group i of g, ``error^2 = (g - 1)/g sum_i (v_i - mean v)^2``,
    ``bias = (g - 1)(mean v - value)``, and the interval is ``value - bias`` plus and minus the error times Student's
    quantile with g - 1 degrees of freedom. It says nothing about other seeds of the training. The mean of rho and the
    Procrustes similarity are not smooth where a correlation is 0: their bias is then only partly removed.

    Parameters
    ----------
    m : moments with ``groups=10``.
    measure : what to read, such as ``lambda m: cka(m).value``; an array for several numbers.
    level : of the interval.

    Raises
    ------
    UsageError
        The moments were not kept in groups.
    TooFewExamplesError
        There are fewer examples than groups.

    Examples
    --------
    >>> import torch
    >>> from closerlook.similarity import Moments, cka
    >>> generator = torch.Generator().manual_seed(1)
    >>> moments = Moments(groups=10)
    >>> x = torch.randn(1000, 4, generator=generator)
    >>> moments.update(x, x + torch.randn(1000, 4, generator=generator))
    >>> found = jackknife(moments, lambda m: cka(m).value)
    >>> bool(found.low < 0.5 < found.high)
    True
    """
    if m.groups < 2:
        raise UsageError("the jackknife leaves out groups of examples; keep them from the start, with groups=10")
    enough_for(m.groups, m.n)
    left_out = np.array([measure(m.without(group)) for group in range(m.groups)])
    return interval(measure(m), left_out, level=level)


def enough_for(groups: int, n: int) -> None:
    """Raise when some of the groups would be empty: leaving them out changes nothing, and the interval is too short."""
    if n < groups:
        raise TooFewExamplesError(
            f"an interval over examples leaves out {groups} groups in turn, and there are {n} examples; take at least "
            f"{groups}, better hundreds, or do without intervals"
        )


def interval(value: ArrayLike, left_out: ArrayLike, *, level: float = 0.95) -> Interval:
    """The interval from the value with all examples and the values [g, ...] without each group.

    Examples
    --------
    >>> float(interval(2.0, [1.0, 2.0, 3.0]).error.round(6))
    1.154701
    """
    value, each = np.asarray(value, dtype=float), np.asarray(left_out, dtype=float)
    g = len(each)
    error = np.where(np.isnan(value), np.nan, np.sqrt((g - 1) * np.var(each, axis=0)))
    bias = (g - 1) * (each.mean(axis=0) - value)
    reach = float(student.ppf((1 + level) / 2, g - 1)) * error
    return Interval(value, bias, error, value - bias - reach, value - bias + reach)

"""The barrier of a path from a part of the work: as many images and points as a tolerance needs, and no more.

The full reading takes every image at every point of a grid. Here a few images are read at a coarse grid first. Then

- points that may still be the highest get more images (paired differences from the leader, so neighbours of it are
  soon ruled out; Maron and Moore 1997, Artificial Intelligence Review 11, call this racing),
- gaps of the grid that may hide a higher point are bisected,
- the leader and the two ends, whose difference is the barrier, get what the width still needs,

until the interval of the full reading's barrier is within the tolerance. Images are drawn without replacement, so at
the end of the data the interval is a point. The intervals of round r hold for all pairs of points at once with
probability 1 - alpha / (r (r + 1)); over all rounds, however many there are, with 1 - alpha.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from closerlook.landscape.intervals import Array, critical, pairs, standard_error

# (point of the grid, first and one past the last image of the random order)
Request = tuple[int, int, int]
Fetch = Callable[[Sequence[Request]], Sequence[Array]]
FIRST = 500
# A chord between two points may be overshot by this many times what the curvature beside it says.
_CURVATURE = 2.0


@dataclass(frozen=True)
class Certificate:
    """The barrier of the full grid on all images, above the worse end, within [low, high] with probability `level`."""

    value: float
    low: float
    high: float
    t: float
    level: float
    rounds: int


@dataclass
class Race:
    """What is known so far: losses by point of the grid, each of the first images of the random order."""

    t: Array
    fetch: Fetch
    total: int
    tolerance: float
    level: float = 0.95
    losses: dict[int, Array] = field(default_factory=dict)
    leader: int = 0

    def run(self, start: Sequence[int]) -> Certificate:
        """Read until the interval is within the tolerance; `start` are the points to begin with."""
        self._extend(dict.fromkeys({0, *start, len(self.t) - 1}, min(FIRST, self.total)))
        rounds = 1
        while True:
            if not all(np.isfinite(losses).all() for losses in self.losses.values()):
                return self._broken(rounds)
            look = Look(self, 1 - (1 - self.level) / (rounds * (rounds + 1)))
            self.leader, wanted = look.leader, look.wanted()
            if not wanted:
                return Certificate(look.value, look.low, look.high, float(self.t[look.leader]), self.level, rounds)
            self._extend(wanted)
            rounds += 1

    def _broken(self, rounds: int) -> Certificate:
        # A loss that is no number is not hidden behind an interval.
        means = {point: float(losses.mean()) for point, losses in sorted(self.losses.items())}
        ends = max(means[0], means[len(self.t) - 1])
        self.leader = max(means, key=lambda point: (np.isnan(means[point]), means[point]))
        value = means[self.leader] - ends
        return Certificate(value, value, value, float(self.t[self.leader]), self.level, rounds)

    def also(self, points: Iterable[int]) -> None:
        """Read further points, on the images of the first look."""
        self._extend(dict.fromkeys(points, min(FIRST, self.total)))

    def _extend(self, wanted: Mapping[int, int]) -> None:
        held = {point: len(self.losses.get(point, ())) for point in wanted}
        requests = [(point, held[point], n) for point, n in sorted(wanted.items()) if n > held[point]]
        for (point, _, _), new in zip(requests, self.fetch(requests), strict=True):
            self.losses[point] = np.concatenate([self.losses.get(point, np.empty(0)), new])


class Look:
    """The state of a race: the leader, the interval, and what to read next."""

    def __init__(self, race: Race, level: float) -> None:
        self.race = race
        self.points = sorted(race.losses)
        common = min(map(len, race.losses.values()))
        matrix = np.stack([race.losses[point][:common] for point in self.points])
        self.factor = critical(np.cov(matrix), pairs(len(self.points)), level)
        self.means = dict(zip(self.points, matrix.mean(1), strict=True))
        self.leader = max(self.points, key=self._estimate)
        self.above = {point: self._difference(point, self.leader) for point in self.points}
        bases = [self._difference(self.leader, end) for end in (0, len(race.t) - 1)]
        self.value = max(0.0, min(estimate for estimate, _ in bases))
        self.low = max(0.0, min(estimate - width for estimate, width in bases))
        self._top = max(0.0, min(estimate + width for estimate, width in bases))
        self.gaps = {(i, j): self._overshoot(i, j) for i, j in pairwise(self.points) if j > i + 1}
        self._excess = float(max([0.0, *(self._most(point) for point in self.points), *self.gaps.values()]))
        self.high = self._top + self._excess

    def _estimate(self, point: int) -> float:
        # Against the best of the first look at the common images; ties of equal images are decided by the leader's own.
        best = max(self.means, key=self.means.__getitem__)
        return self._difference(point, best)[0]

    def _difference(self, point: int, other: int) -> tuple[float, float]:
        """Mean loss of a point above another's, on the images that both have, and the half width of its interval."""
        if point == other:
            return 0.0, 0.0
        a, b = self.race.losses[point], self.race.losses[other]
        n = min(len(a), len(b))
        values = a[:n] - b[:n]
        return float(values.mean()), self.factor * standard_error(values, self.race.total)

    def _most(self, point: int) -> float:
        return sum(self.above[point])

    def _overshoot(self, i: int, j: int) -> float:
        """How far the highest point of a gap may lie above the leader: a parabola as curved as the path beside it."""
        t, v = self.race.t, self.means
        length = t[j] - t[i]
        slope = abs(v[j] - v[i]) / length
        curvature = _CURVATURE * max(self._concavity(i), self._concavity(j))
        extra = curvature * length / 2 - slope
        bump = extra**2 / (2 * curvature) if curvature > 0 and extra > 0 else 0.0
        return max(self._most(i), self._most(j)) + bump

    def _concavity(self, point: int) -> float:
        place = min(max(self.points.index(point), 1), len(self.points) - 2)
        if len(self.points) < 3:
            return 0.0
        (a, b, c), t, v = self.points[place - 1 : place + 2], self.race.t, self.means
        second = 2 * ((v[c] - v[b]) / (t[c] - t[b]) - (v[b] - v[a]) / (t[b] - t[a])) / (t[c] - t[a])
        return max(0.0, -float(second))

    def wanted(self) -> dict[int, int]:
        """Images to have read by point; nothing when the interval is within the tolerance."""
        tolerance = self.race.tolerance
        if self.value - self.low <= tolerance and self.high - self.value <= tolerance:
            return {}
        budget = 0.75 * tolerance
        middles = {(i + j) // 2: FIRST for (i, j), over in self.gaps.items() if over > budget}
        rivals = {point: self._enough(point, budget) for point in self.points if self._most(point) > budget}
        wanted = {point: min(n, self.race.total) for point, n in {**rivals, **middles}.items()}
        need = max(wanted.values(), default=0) or self._enough_for_the_barrier(tolerance - self._excess)
        ends = {self.leader, 0, len(self.race.t) - 1}
        return wanted | {point: max(need, wanted.get(point, 0)) for point in ends}

    def _enough(self, point: int, budget: float) -> int:
        estimate, width = self.above[point]
        n = min(len(self.race.losses[point]), len(self.race.losses[self.leader]))
        return self._more(n, width / (budget - estimate) if estimate < budget else np.inf)

    def _enough_for_the_barrier(self, width: float) -> int:
        n = min(len(self.race.losses[point]) for point in (self.leader, 0, len(self.race.t) - 1))
        now = max(self.value - self.low, self._top - self.value)
        return self._more(n, now / width if width > 0 else np.inf)

    def _more(self, n: int, ratio: float) -> int:
        """Images after which a width is `ratio` times smaller, at least half as many again, in whole steps."""
        total = self.race.total
        if not np.isfinite(ratio):
            return min(2 * n, total) if n < total / 4 else total
        # The width goes as sqrt((1 - n / N) / n).
        needed = total / (1 + (total - n) / (n * ratio**2)) if ratio > 0 else n
        return int(min(total, FIRST * np.ceil(max(needed, 1.5 * n) / FIRST)))


def placed(held: Mapping[int, Array], known: Sequence[int], total: int) -> tuple[Array, Array]:
    """Means [m] of values by point, and their standard errors as means of `total` images.

    A point with few images is placed by regression on the `known` points, which have more (the regression estimator of
    double sampling; Cochran 1977, Sampling Techniques, section 12.6): mean(y) + b (mean of all x - mean of its x).
    """
    rows = [_placed(own, [held[point] for point in known if len(held[point]) > len(own)], total)
            for own in held.values()]  # fmt: skip
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def _placed(own: Array, others: Sequence[Array], total: int) -> tuple[float, float]:
    n = len(own)
    if not others or n <= len(others) + 1:
        return float(own.mean()), standard_error(own, total)
    few = np.stack([other[:n] for other in others])
    centred = few - few.mean(1, keepdims=True)
    slopes = np.linalg.lstsq(centred.T, own - own.mean(), rcond=None)[0]
    moved = sum(slope * (other.mean() - mean) for slope, other, mean in zip(slopes, others, few.mean(1), strict=True))
    most = min(map(len, others))
    fitted = slopes @ np.stack([other[:most] for other in others])
    errors = standard_error(own - own.mean() - slopes @ centred, total), standard_error(fitted, total)
    return float(own.mean() + moved), float(np.hypot(*errors))

"""A profile from a part of the images and points, until the barriers are within a tolerance."""

from collections.abc import Sequence

import numpy as np

from closerlook.landscape.cells import Arrays, Cells
from closerlook.landscape.certify import FIRST, Certificate, Race, Request, placed
from closerlook.landscape.intervals import Array
from closerlook.landscape.metrics import covariance_of, largest_differences, means
from closerlook.landscape.reader import Reader
from closerlook.landscape.subset import Subset
from closerlook.landscape.whole import IMAGES, Read, images_in, own_ends

_STRIDE = 4


class Part:
    """Reads requested images at requested points, each once; statistics of a point are estimated once and kept."""

    def __init__(self, reader: Reader, cells: Cells, coefficients: np.ndarray, seed: int) -> None:
        self.reader, self.cells, self.coefficients = reader, cells, coefficients
        self.subsets = {split: Subset(loader, seed) for split, loader in reader.splits.items()}
        self.statistics: dict[int, Arrays] = {}
        self.values: dict[str, dict[int, list[Arrays]]] = {split: {} for split in reader.splits}
        self.evaluations = 0

    def fetch(self, split: str, requests: Sequence[Request]) -> list[Array]:
        """Losses of each request's images; the other metrics are kept beside."""
        self._estimate([point for point, _, _ in requests])
        spans = sorted({(low, high) for _, low, high in requests})
        found: dict[Request, Arrays] = {}
        for low, high in spans:
            points = [point for point, *span in requests if tuple(span) == (low, high)]
            for point, arrays in zip(points, self.read(split, points, low, high), strict=True):
                found[point, low, high] = arrays
                self.values[split].setdefault(point, []).append(arrays)
            self.evaluations += len(points) * (high - low)
        return [found[request][f"{split}_loss"] for request in requests]

    def read(
        self, split: str, points: Sequence[int], low: int, high: int, reader: Reader | None = None, kind: str = ""
    ) -> list[Arrays]:
        """Values of the images number low .. high - 1 at each point, in their order."""
        batches, numbers = self.subsets[split].batches(low, high)
        order, reader = np.argsort(numbers), reader or self.reader

        def read(number: int) -> Arrays:
            point = points[number]
            reader.place(self.coefficients[point], self.statistics[point])
            return {name: array[order] for name, array in reader.values_on(split, batches).items()}

        return self.cells.fill([f"{kind}{split}-{point:04d}-{low}-{high}" for point in points], read)

    def _estimate(self, points: Sequence[int]) -> None:
        new = [point for point in dict.fromkeys(points) if point not in self.statistics]

        def estimate(number: int) -> Arrays:
            images = self.reader.place(self.coefficients[new[number]])
            return {**self.reader.statistics(), IMAGES: np.array(images)}

        if not self.reader.estimates:
            self.statistics |= {point: {} for point in new}
            return
        names = [f"statistics-{point:04d}" for point in new]
        found = self.cells.fill(names, estimate)
        self.statistics |= dict(zip(new, found, strict=True))
        self.evaluations += sum(int(arrays[IMAGES]) for arrays in found)

    def held(self, split: str, name: str) -> dict[int, Array]:
        """All values of a metric that were read, by point, in the random order of the images."""
        return {
            point: np.concatenate([arrays[name] for arrays in parts])
            for point, parts in sorted(self.values[split].items())
        }


def first_points(t: np.ndarray, control_points: int) -> list[int]:
    """Points of the grid to begin with: every fourth, and those at the corners of a chain of control points."""
    # A parabola through the neighbours of a corner would not see it.
    corners = np.abs(t[:, None] - np.linspace(0, 1, control_points)).argmin(0)
    return sorted({*range(0, len(t), _STRIDE), *corners.tolist()})


def read_part(
    reader: Reader, cells: Cells, t: np.ndarray, coefficients: np.ndarray, *, tolerance: float, level: float, seed: int
) -> Read:
    """Race every split to its tolerance, and place all points that were read on every split."""
    part = Part(reader, cells, coefficients, seed)
    start = set(first_points(t, len(reader.subspace.points)))
    races: dict[str, Race] = {}
    certificates: dict[str, Certificate] = {}
    for split, subset in part.subsets.items():
        races[split] = Race(t, lambda asked, split=split: part.fetch(split, asked), subset.total, tolerance, level)  # type: ignore[misc]
        certificates[split] = races[split].run(sorted(start))
        start |= set(races[split].losses)
    for race in races.values():  # a point that one split asked for is placed on all
        race.also(start)
    return _gathered(part, races, certificates, np.array(sorted(start)))


def _gathered(part: Part, races: dict[str, Race], certificates: dict[str, Certificate], chosen: np.ndarray) -> Read:
    values, errors, covariance, images, n = {}, {}, {}, {}, {}
    for split, race in races.items():
        known = (race.leader, 0, len(race.t) - 1)
        n[split] = race.total
        images[split] = np.array([len(race.losses[point]) for point in chosen])
        for name in part.values[split][0][0]:
            held = part.held(split, name)
            values[name], errors[name] = placed(held, known, race.total)
            common = int(images[split].min())
            covariance[name] = covariance_of(np.stack([row[:common] for row in held.values()]))
    own, differences = own_ends(part.reader, part.cells), _precision_errors(part, races)
    evaluations = part.evaluations + images_in(part.reader, own)
    ends = (means(own[0]), means(own[1]))
    return Read(chosen, values, errors, covariance, n, images, ends, evaluations, certificates, differences)


def _precision_errors(part: Part, races: dict[str, Race]) -> dict[str, float]:
    """The largest difference of each mean from full precision, on the first images at the ends and the leader."""
    if part.reader.feed.autocast is None:
        return {}
    found: dict[str, float] = {}
    for split, race in races.items():
        points = sorted({0, race.leader, len(race.t) - 1})
        count = min(FIRST, race.total)
        full = part.read(split, points, 0, count, part.reader.in_full_precision(), "full-precision-")
        part.evaluations += count * len(points)
        held = {name: part.held(split, name) for name in full[0]}
        low = [{name: float(values[point][:count].mean()) for name, values in held.items()} for point in points]
        found |= largest_differences(
            low, [{name: float(array.mean()) for name, array in each.items()} for each in full]
        )
    return found

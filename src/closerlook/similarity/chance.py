"""What a similarity is expected to be when the examples are paired at random.

Pairing at random is a random rotation of one side against the other, so that only ranks, spectra and n matter.
Where the mean is known it is exact; else it is simulated, from a seed, without the examples.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal
from torch import Tensor

from closerlook.similarity.whitening import LARGE

MOST_DRAWS, FEWEST_DRAWS = 1000, 4
MOST_KEPT = 1 << 19  # numbers of one pair of ranks, 4 MB
MOST_STACKED = 1 << 19  # numbers of the matrices that are decomposed in one call


@dataclass(frozen=True, eq=False)
class Chance:
    """A chance level: how it comes about, its value, and the standard error of the value where it is simulated."""

    how: str
    read: Callable[[], tuple[float, float]]
    draws: int = 0

    @cached_property
    def value(self) -> float:
        """Expected similarity."""
        return self.read()[0]

    @cached_property
    def error(self) -> float:
        """Standard error of the simulation; 0 where the value is exact."""
        return self.read()[1]


def exact(value: float, how: str) -> Chance:
    """A chance level in closed form."""
    return Chance(how, partial(_pair, value, 0.0))


def squared_correlation(r_x: int, r_y: int, n: int) -> float:
    """``E[mean rho^2] = max(r_x, r_y) / (n - 1)``, exact for every pairing at random."""
    return max(r_x, r_y) / (n - 1)


def top_edge(r_x: int, r_y: int, n: int) -> float:
    """Upper edge of the limit law of rho under chance (Wachter 1980): ``sqrt(a(1-b)) + sqrt(b(1-a))``, a = r_x/(n-1).

    The largest rho of a finite sample lies near it, above it in a tenth of Gaussian cases: a guide, not a test.
    """
    a, b = r_x / (n - 1), r_y / (n - 1)
    return 1.0 if a + b >= 1 else float(np.sqrt(a * (1 - b)) + np.sqrt(b * (1 - a)))


def mean_correlation(r_x: int, r_y: int, n: int, seed: int, scale: float = 1.0, beta: int = 1) -> Chance:
    """Chance level of the mean rho (times `scale`); beta = 1 for real data, 2 for complex."""
    return Chance(
        f"simulated from the ranks, seed {seed}",
        partial(_scaled, scale, _mean_correlation, r_x, r_y, n, seed, beta),
        draws_for(min(r_x, r_y)),
    )


def nuclear_norm(spectrum_x: Tensor, spectrum_y: Tensor, n: int, seed: int) -> Chance:
    """Chance level of the nuclear norm of a cross covariance whose own covariances have these spectra, trace 1."""
    spectrum_x, spectrum_y = sorted((spectrum_x, spectrum_y), key=len, reverse=True)  # a draw costs r_x r_y^2
    return Chance(
        f"simulated from the spectra, seed {seed}",
        partial(_nuclear_norm, spectrum_x, spectrum_y, n, seed),
        draws_for(min(len(spectrum_x), len(spectrum_y))),
    )


def draws_for(rank: int) -> int:
    """Draws that bring the standard error of a mean over `rank` values below about 0.001: sums scatter by O(1).

    Where a few of the values are nearly all of the mean, as with steep spectra, it is larger: 0.009 has been seen.
    """
    return int(np.clip(np.ceil((200 / max(rank, 1)) ** 2), FEWEST_DRAWS, MOST_DRAWS))


def random_correlations(r_x: int, r_y: int, n: int, rng: np.random.Generator, beta: int = 1) -> NDArray[np.float64]:
    """Canonical correlations [min(r_x, r_y)] of two random subspaces of the n - 1 centred dimensions.

    Singular values of the bidiagonal beta-Jacobi model (Edelman and Sutton 2008, Found. Comput. Math. 8, 259):
    O(r) random numbers, no matrix of examples.
    """
    m, a, b = min(r_x, r_y), abs(r_x - r_y), n - 1 - r_x - r_y
    i = np.arange(m, 0, -1)
    cos2 = rng.beta(beta / 2 * (a + i), beta / 2 * (b + i))
    other2 = rng.beta(beta / 2 * i[1:], beta / 2 * (a + b + 1 + i[1:]))
    diagonal2 = cos2 * np.concatenate([[1.0], 1 - other2])
    above2 = np.concatenate([(1 - cos2[:-1]) * other2, [0.0]])
    # The tridiagonal B B' of an upper bidiagonal B; signs do not matter to its eigenvalues.
    between = np.sqrt(above2[:-1] * diagonal2[1:])
    squares = eigvalsh_tridiagonal(diagonal2 + above2, between, lapack_driver="sterf")
    return np.sqrt(np.clip(squares[::-1], 0.0, 1.0))


def random_blocks(r_x: int, r_y: int, n: int, rng: np.random.Generator, count: int) -> Tensor:
    """Inner products [count, r_x, r_y] of orthonormal bases of random subspaces of the n - 1 centred dimensions."""
    top, rest = _gaussian(rng, count, r_x, r_y), n - 1 - r_x
    if rest > r_y:  # Bartlett: the triangle of a Gaussian matrix [rest, r_y] without drawing it
        below = torch.triu(_gaussian(rng, count, r_y, r_y), 1)
        lengths = np.sqrt(rng.chisquare(rest - np.arange(r_y), size=(count, r_y)))
        below += torch.diag_embed(torch.from_numpy(lengths))
    else:
        below = _gaussian(rng, count, max(rest, 0), r_y)
    triangles = torch.linalg.qr(torch.cat([top, below], 1), mode="r").R
    return torch.linalg.solve_triangular(triangles, top, upper=True, left=False)


def _gaussian(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape))


@lru_cache(maxsize=4096)
def _mean_correlation(r_x: int, r_y: int, n: int, seed: int, beta: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    count = draws_for(min(r_x, r_y))
    return _mean_and_error([float(random_correlations(r_x, r_y, n, rng, beta).mean()) for _ in range(count)])


def _nuclear_norm(spectrum_x: Tensor, spectrum_y: Tensor, n: int, seed: int) -> tuple[float, float]:
    left, right = spectrum_x.sqrt()[:, None], spectrum_y.sqrt()
    draws = _random_draws(len(spectrum_x), len(spectrum_y), n, seed)
    return _mean_and_error([norm for blocks in draws for norm in _nuclear_norms(left * blocks * right)])


def _nuclear_norms(matrices: Tensor) -> list[float]:
    """Nuclear norm of each; roots of the square's eigenvalues are off by 1e-8, far less than draws scatter."""
    if min(matrices.shape[1:]) < LARGE:
        return torch.linalg.svdvals(matrices).sum(1).tolist()
    return torch.linalg.eigvalsh(matrices.mT @ matrices).clamp_min(0).sqrt().sum(1).tolist()


def _random_draws(r_x: int, r_y: int, n: int, seed: int) -> Iterable[Tensor]:
    """The draws for a pair of ranks; few are kept: layers of equal width share them, and so do comparisons."""
    if r_x * r_y * draws_for(min(r_x, r_y)) <= MOST_KEPT:
        return _kept_draws(r_x, r_y, n, seed)
    return _drawn(r_x, r_y, n, seed)


@lru_cache(maxsize=256)
def _kept_draws(r_x: int, r_y: int, n: int, seed: int) -> list[Tensor]:
    return list(_drawn(r_x, r_y, n, seed))


def _drawn(r_x: int, r_y: int, n: int, seed: int) -> Iterator[Tensor]:
    """All draws, in stacks: a call for each small matrix would take longer than its numbers."""
    rng, left = np.random.default_rng(seed), draws_for(min(r_x, r_y))
    most = max(1, MOST_STACKED // (r_x * r_y))
    while left:
        count = min(left, most)
        yield random_blocks(r_x, r_y, n, rng, count)
        left -= count


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _pair(value: float, error: float) -> tuple[float, float]:
    return value, error


def _scaled(scale: float, read: Callable[..., tuple[float, float]], *arguments: int) -> tuple[float, float]:
    value, error = read(*arguments)
    return scale * value, scale * error

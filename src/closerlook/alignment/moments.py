"""Means and second moments of units, merged over batches in float64."""

import torch
from torch import Tensor

from closerlook.errors import NotFiniteError


class Moments:
    """Count, means [n] and centred second moments of n units, and their products [n, n] with those of another network.

    References
    ----------
    Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances.
    """

    count = 0
    mean: Tensor
    squares: Tensor
    cross: Tensor

    def add(self, x: Tensor, y: Tensor | None = None) -> None:
        """Take note of samples [n, m], and of the other network's samples [n, m] of the same examples."""
        both = (x if y is None else torch.cat([x, y])).double().cpu()
        count, mean = both.shape[1], both.mean(1)
        centred = both - mean[:, None]
        squares, cross = (centred**2).sum(1), centred[: len(x)] @ centred[len(x) :].T
        if self.count:
            step, share = mean - self.mean, self.count * count / (self.count + count)
            squares += self.squares + share * step**2
            cross += self.cross + share * torch.outer(step[: len(x)], step[len(x) :])
            mean = self.mean + step * (count / (self.count + count))
        rounding = (self.count + count) * (4 * torch.finfo(mean.dtype).eps * mean) ** 2
        squares = torch.where(squares < rounding, 0.0, squares)  # the mean of equal numbers need not be that number
        if not bool(torch.isfinite(squares).all()):
            raise NotFiniteError("an activation is NaN or infinite: nothing can be aligned at these weights")
        self.count, self.mean, self.squares, self.cross = self.count + count, mean, squares, cross

    @property
    def std(self) -> Tensor:
        """Standard deviations [n], over the samples themselves."""
        return (self.squares / self.count).sqrt()

    @property
    def correlations(self) -> Tensor:
        """Correlations [n, n] of the two networks' units, 0 where one of them never changes."""
        n = len(self.cross)
        scale = (self.squares[:n, None] * self.squares[n:]).sqrt()
        return torch.where(scale > 0, self.cross / torch.where(scale > 0, scale, 1.0), 0.0)

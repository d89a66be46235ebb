"""A network at a point that has no batch-norm statistics of its own: an average of weights, a point of a curve."""

from typing import Any

from torch import nn

from closerlook.batches import BatchFn, Loader, check_loader, feed_for
from closerlook.evaluation.batch_norm import batch_norms, estimate_batch_stats
from closerlook.evaluation.spectral import settle_spectral_norms
from closerlook.weights import loaded


def with_statistics(
    model: nn.Module, weights: Any, stats_loader: Loader, *, batch_fn: BatchFn | None = None
) -> nn.Module:
    """A copy of the model with other weights, its batch-norm statistics estimated anew, in eval mode.

    Pooled over the examples of `stats_loader`, as a profile with ``batch_stats="recompute"`` has them at each point.
    The mean of the statistics of several networks is not that of the network with their mean weights (Izmailov et al.
    2018, arXiv 1803.05407).

    Parameters
    ----------
    weights
        A point, another model, a state dict or a checkpoint's path.
    stats_loader
        Training images on which no loss is read; a network without batch norm needs none of them.

    Raises
    ------
    LoaderError
        A one-shot or empty loader, or a batch with one value per channel.
    MismatchError
        The weights do not fit.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> batch = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([0, 1])
    >>> made = with_statistics(net, torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), [batch])
    >>> made[1].running_mean, made[1].running_var
    (tensor([2., 1.]), tensor([1., 1.]))
    """
    check_loader(stats_loader, "stats_loader")
    made = loaded(model, weights).eval()
    settle_spectral_norms(made)
    if batch_norms(made):
        estimate_batch_stats(made, stats_loader, feed_for(made, batch_fn)[1])
    return made

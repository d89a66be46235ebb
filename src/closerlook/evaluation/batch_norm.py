"""Statistics of batch norm (and of instance norm that keeps some) estimated anew from one pass over a loader."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from closerlook.batches import Feed, Loader, batches_of
from closerlook.errors import LoaderError

Pooling = Literal["pooled", "reference"]
_NO_VARIANCE = ("more than 1 value per channel", "more than 1 spatial element")  # in PyTorch's words


def batch_norms(model: nn.Module) -> list[_NormBase]:
    """The normalising layers that keep running statistics: batch norm, and instance norm that was asked to."""
    return [module for module in model.modules() if isinstance(module, _NormBase) and module.running_mean is not None]


def estimate_batch_stats(model: nn.Module, loader: Loader, feed: Feed, pooling: Pooling = "pooled") -> int:
    """Set the running statistics of every normalising layer from one pass; returns the number of examples.

    Only the norm layers are in train mode, everything else in eval; each batch is normalised by its own
    statistics, so the batch size is part of the definition. With batch means m_b, biased variances v_b and
    counts n_b (examples times positions), in float64:

    - ``"pooled"``: mean = sum n_b m_b / n, var = sum n_b (v_b + (m_b - mean)^2) / n;
    - ``"reference"``: the same mean, var = sum n_b (n_b / (n_b - 1)) v_b / n, as the reference tools compute
      it (Garipov et al. 2018, arXiv 1802.10026; Izmailov et al. 2018, arXiv 1803.05407).

    Instance norm normalises every example by its own statistics, so there the means over examples are taken: of
    the biased variances for ``"pooled"``, of the unbiased ones for ``"reference"``. A layer that is called several
    times pools all its calls; one that is never called keeps what it had.

    The model is left in eval mode with the new statistics: call it on a borrowed model.

    Raises
    ------
    LoaderError
        A batch with one value per channel, whose variance does not exist.
    """
    model.eval()
    examples = 0
    with _collected(batch_norms(model)) as pools, torch.no_grad():
        try:
            for batch in batches_of(loader, "stats_loader"):
                examples += len(feed(model, batch).loss)
        except ValueError as error:
            if not any(words in str(error) for words in _NO_VARIANCE):
                raise
            raise LoaderError(
                f"stats_loader gave a batch with one value per channel, which has no variance ({error}); choose a "
                "batch size that leaves no single example over, or drop_last=True"
            ) from error
    for pool in pools:
        pool.write(pooling)
    return examples


@contextmanager
def _collected(layers: list[_NormBase]) -> Iterator[list["_Pool"]]:
    """The layers in train mode, each with a pool that hears of its calls; back in eval mode afterwards."""
    pools = [_Pool(layer) for layer in layers]
    momenta = [layer.momentum for layer in layers]
    hooks = [layer.register_forward_hook(pool.take) for layer, pool in zip(layers, pools, strict=True)]
    try:
        for layer in layers:
            layer.train()
            layer.reset_running_stats()  # a NaN left by a diverged run would survive: 0 * NaN is NaN
            layer.momentum = 1.0  # the running statistics are then those of the last call
        yield pools
    finally:
        for layer, hook, momentum in zip(layers, hooks, momenta, strict=True):
            hook.remove()
            layer.momentum = momentum
            layer.eval()


class _Pool:
    """Counts, means and summed squares of one layer's calls, merged in float64 (Chan et al. 1979)."""

    def __init__(self, layer: _NormBase) -> None:
        self.layer, self.before = layer, [value.clone() for value in layer.buffers(recurse=False)]
        self.count = 0
        self.mean = torch.zeros(layer.num_features, dtype=torch.float64)
        self.squares, self.unbiased = torch.zeros_like(self.mean), torch.zeros_like(self.mean)

    def take(self, layer: _NormBase, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        mean, unbiased = layer.running_mean.double().cpu(), layer.running_var.double().cpu()
        n = output.numel() // output.shape[1]
        degrees, between = n - 1.0, (mean - self.mean) ** 2
        if not isinstance(layer, _BatchNorm):  # one mean and variance per example, which PyTorch has averaged
            n, values = len(output), n // len(output)
            degrees, between = n * (values - 1) / values, torch.zeros_like(mean)
        total = self.count + n
        self.squares += unbiased * degrees + between * (self.count * n / total)
        self.mean += (mean - self.mean) * (n / total)
        self.unbiased += unbiased * n
        self.count = total

    def write(self, pooling: Pooling) -> None:
        """Give the layer what was pooled, or what it had when it was not called."""
        assert self.layer.running_mean is not None
        assert self.layer.running_var is not None
        with torch.no_grad():
            if self.count == 0:
                for buffer, value in zip(self.layer.buffers(recurse=False), self.before, strict=True):
                    buffer.copy_(value)
                return
            variance = self.squares if pooling == "pooled" else self.unbiased
            self.layer.running_mean.copy_(self.mean)
            self.layer.running_var.copy_(variance / self.count)

"""Batch-norm statistics estimated anew from one pass over a loader."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from closerlook.batches import Feed, Loader, batches_of

Pooling = Literal["pooled", "reference"]


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch-norm layers that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]


def estimate_batch_stats(model: nn.Module, loader: Loader, feed: Feed, pooling: Pooling = "pooled") -> int:
    """Set the running statistics of every batch-norm layer from one pass; returns the number of examples.

    Only the norm layers are in train mode, everything else in eval; each batch is normalised by its own
    statistics, so the batch size is part of the definition. With batch means m_b, biased variances v_b and
    counts n_b (examples times positions), in float64:

    - ``"pooled"``: mean = sum n_b m_b / n, var = sum n_b (v_b + (m_b - mean)^2) / n;
    - ``"reference"``: the same mean, var = sum n_b (n_b / (n_b - 1)) v_b / n, as the reference tools compute
      it (Garipov et al. 2018, arXiv 1802.10026; Izmailov et al. 2018, arXiv 1803.05407).

    The model is left in eval mode with the new statistics: call it on a borrowed model.
    """
    layers = batch_norms(model)
    momenta = [layer.momentum for layer in layers]
    pools = [_Pool(layer.num_features) for layer in layers]
    hooks = [layer.register_forward_hook(pool.take) for layer, pool in zip(layers, pools, strict=True)]
    model.eval()
    examples = 0
    try:
        for layer in layers:
            layer.train()
            layer.reset_running_stats()  # a NaN left by a diverged run would survive: 0 * NaN is NaN
            layer.momentum = 1.0  # the running statistics are then those of the last batch
        with torch.inference_mode():
            for batch in batches_of(loader, "stats_loader"):
                examples += len(feed(model, batch).loss)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
    for layer, pool in zip(layers, pools, strict=True):
        pool.write(layer, pooling)
    return examples


class _Pool:
    """Counts, means and summed squares of one layer's batches, merged in float64 (Chan et al. 1979)."""

    def __init__(self, features: int) -> None:
        self.count = 0
        self.mean = torch.zeros(features, dtype=torch.float64)
        self.squares = torch.zeros(features, dtype=torch.float64)
        self.unbiased = torch.zeros(features, dtype=torch.float64)

    def take(self, layer: _BatchNorm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        n = inputs[0].numel() // inputs[0].shape[1]
        mean, unbiased = layer.running_mean.double().cpu(), layer.running_var.double().cpu()
        total = self.count + n
        self.squares += unbiased * (n - 1) + (mean - self.mean) ** 2 * (self.count * n / total)
        self.mean += (mean - self.mean) * (n / total)
        self.unbiased += unbiased * n
        self.count = total

    def write(self, layer: _BatchNorm, pooling: Pooling) -> None:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        variance = self.squares if pooling == "pooled" else self.unbiased
        with torch.no_grad():
            layer.running_mean.copy_(self.mean)
            layer.running_var.copy_(variance / self.count)

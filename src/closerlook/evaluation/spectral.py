"""The singular vectors that spectral norm keeps as buffers, found anew for the weights at hand."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

_MOST = 1000  # power iterations; each is two products of the weight with a vector


def spectral_buffers(model: nn.Module) -> list[Tensor]:
    """The buffers that `settle_spectral_norms` sets."""
    return [buffer for _, _, norm in _spectral_norms(model) for buffer in norm.buffers()]


def settle_spectral_norms(model: nn.Module) -> None:
    """Iterate ``u = W v / |W v|, v = W^T u / |W^T u|`` of every spectral norm until u is steady.

    In eval mode W is divided by u^T W v, with the vectors of the last training step, which mean nothing at another
    point. Modes come back as they were (Miyato et al. 2018, arXiv 1802.05957).

    Examples
    --------
    >>> layer = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)).eval()
    >>> with torch.no_grad():
    ...     _ = layer.parametrizations.weight.original.copy_(torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    >>> settle_spectral_norms(layer)
    >>> round(float(torch.linalg.matrix_norm(layer.weight.detach(), 2)), 5)
    1.0
    """
    for module, name, norm in _spectral_norms(model):
        mode = norm.training
        norm.train()  # then reading the weight takes an iteration
        steady = 16 * torch.finfo(next(iter(norm.buffers()), torch.zeros(())).dtype).eps
        with torch.no_grad():
            for _ in range(_MOST):
                before = [buffer.clone() for buffer in norm.buffers()]
                getattr(module, name)
                if all(_moved(old, new) <= steady for old, new in zip(before, norm.buffers(), strict=True)):
                    break
        norm.train(mode)


def _moved(old: Tensor, new: Tensor) -> float:
    return float((new - old).abs().max())


def _spectral_norms(model: nn.Module) -> Iterator[tuple[nn.Module, str, _SpectralNorm]]:
    for module in model.modules():
        for name, steps in getattr(module, "parametrizations", {}).items():
            for step in steps:
                if isinstance(step, _SpectralNorm):
                    yield module, name, step

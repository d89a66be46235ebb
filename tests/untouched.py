"""What a caller could find changed in a model, a loader and the generators."""

from typing import Any

import torch
from torch import Tensor, nn

from closerlook.batches import own_generators


def everything(model: nn.Module, loader: Any = None) -> dict[str, Any]:
    """All that a caller could find changed: identities by address, contents by value."""
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    return {
        "identity": [id(value) for value in tensors.values()],
        "memory": [(value.data_ptr(), value.stride(), value.storage_offset()) for value in tensors.values()],
        "storage": [value.untyped_storage().nbytes() for value in tensors.values()],
        "values": {name: value.detach().clone() for name, value in tensors.items()},
        "grads": {name: None if value.grad is None else value.grad.clone() for name, value in tensors.items()},
        "gradient memory": [None if value.grad is None else value.grad.data_ptr() for value in tensors.values()],
        "requires_grad": [value.requires_grad for value in tensors.values()],
        "inference": [value.is_inference() for value in tensors.values()],
        "modes": {name: module.training for name, module in model.named_modules()},
        "momenta": [getattr(module, "momentum", None) for module in model.modules()],
        "hooks": [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        "generators": [torch.get_rng_state(), *(own.get_state() for own in own_generators(loader))],
        "grad mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
    }


def same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two

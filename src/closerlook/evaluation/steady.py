"""Whether a model gives the same outputs for one batch twice, and if not, why."""

from typing import Any

import torch
from torch import Tensor, nn

from closerlook.batches import Feed, copied, generators_kept, identical, seed_all, tensors_in
from closerlook.errors import LoaderError
from closerlook.views import buffers_kept


def check_steady(model: nn.Module, batch: Any, feed: Feed, name: str) -> int:
    """The number of examples of a batch, after it went through the model twice.

    Raises
    ------
    LoaderError
        The second outputs differ: noise in eval mode, or a state that the first call changed.
    """
    with torch.no_grad(), buffers_kept(model), generators_kept():
        output = feed(model, batch)
        first, second = copied(output), copied(feed(model, batch))
    if not _equal(first, second, feed):
        raise LoaderError(
            f"the model gives other outputs for one and the same batch of {name} in eval mode: "
            f"{_reason(model, batch, feed)}"
        )
    return len(output.loss)


def _equal(first: dict[str, Any], second: dict[str, Any], feed: Feed) -> bool:
    if first.keys() != second.keys():
        return False
    if all(identical(first[path], second[path]) for path in first):
        return True
    # Kernels of an accelerator may sum in another order from call to call.
    return feed.device.type != "cpu" and all(_close(first[path], second[path]) for path in first)


def _close(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not a.is_floating_point() or a.shape != b.shape:
        return identical(a, b)
    return torch.allclose(a, b, rtol=0, atol=1e-3 * float(a.abs().max()), equal_nan=True)


def _reason(model: nn.Module, batch: Any, feed: Feed) -> str:
    def run(seed: int) -> dict[str, Any]:
        with torch.no_grad(), buffers_kept(model), generators_kept():
            seed_all(seed)
            return copied(feed(model, batch))

    if not _equal(run(1), run(1), feed):
        return (
            "it keeps a state outside its buffers, or draws from a generator of its own. Make its outputs depend on "
            "weights, buffers and inputs alone"
        )
    if _equal(run(1), run(2), feed):
        return f"{_changed_buffers(model, batch, feed)} changes with every call. Change it in train mode only"
    return (
        f"noise is active, first in {_first_noise(model, batch, feed)}: dropout with training=True, stochastic depth, "
        "or a random draw in forward. Make it depend on self.training"
    )


def _changed_buffers(model: nn.Module, batch: Any, feed: Feed) -> str:
    before = copied(dict(model.named_buffers()))
    with torch.no_grad(), buffers_kept(model):
        feed(model, batch)
        after = copied(dict(model.named_buffers()))
    changed = [path.removeprefix("batch.") for path in before if not identical(before[path], after.get(path))]
    return f"the buffer {', '.join(changed[:3])}"


def _first_noise(model: nn.Module, batch: Any, feed: Feed) -> str:
    """The layer whose output differs first between two seeds; children end before the modules that hold them."""
    calls = zip(_sums(model, batch, feed, 1), _sums(model, batch, feed, 2), strict=False)
    found = next((layer for (layer, sums), (_, others) in calls if sums != others), "")
    return found or "the batch function"


def _sums(model: nn.Module, batch: Any, feed: Feed, seed: int) -> list[tuple[str, list[float]]]:
    seen: list[tuple[str, list[float]]] = []

    def watcher(name: str) -> Any:
        def watch(module: nn.Module, inputs: Any, output: Any) -> None:
            layer = f"{name or 'the model'} ({type(module).__name__})"
            seen.append((layer, [float(value.double().square().sum()) for value in tensors_in(output)]))

        return watch

    hooks = [module.register_forward_hook(watcher(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad(), buffers_kept(model), generators_kept():
            seed_all(seed)
            feed(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen

"""Forward passes for representations: eval mode, no gradients, fp32, no compiled graph that would skip hooks."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from closerlook.activations.outputs import tensor_in
from closerlook.batches import BatchFn, tensors_in, to_device
from closerlook.errors import LoaderError

_TARGETS = ("y", "labels", "targets")


@dataclass(frozen=True)
class Forward:
    """Shows a batch to a model in fp32, on its device; returns the number of examples."""

    device: torch.device
    batch_fn: BatchFn | None = None

    def __call__(self, model: nn.Module, batch: Any) -> int:
        """One forward pass, whose outputs the hooks see.

        Raises
        ------
        LoaderError
            The batch has no examples to count, or the model writes into it: the next model would see another.
        """
        batch = to_device(batch, self.device)
        before = _versions(batch)
        with torch.no_grad(), _full_precision(self.device), _eager(model):
            n = self._run(model, batch)
        if _versions(batch) != before:
            raise LoaderError(
                f"the {type(model).__name__} writes into its input, so that the next forward pass sees another batch; "
                "make its first operation one that is not in place (inplace=False, x = x.clone())"
            )
        return n

    def _run(self, model: nn.Module, batch: Any) -> int:
        if self.batch_fn is not None:
            return len(self.batch_fn(model, batch).loss)
        inputs = inputs_of(batch)
        model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
        return examples(inputs)


def inputs_of(batch: Any) -> Any:
    """What the model takes: x of ``(x, y)``, a dict without its targets, or the batch itself when it is a tensor.

    Raises
    ------
    LoaderError
        A batch of another form.
    """
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Mapping):
        rest = {name: value for name, value in batch.items() if name not in _TARGETS}
        return rest["x"] if set(rest) == {"x"} else rest
    if isinstance(batch, tuple | list) and len(batch) in (1, 2):
        return batch[0]
    raise LoaderError("a batch is a tensor, (x,), (x, y) or a dict of inputs; for other forms pass batch_fn")


def examples(inputs: Any) -> int:
    """Number of examples: the first dimension of the first tensor."""
    found = tensor_in(inputs)
    if found is None or found.ndim == 0:
        raise LoaderError("there is no tensor in the batch to count its examples by; pass batch_fn")
    return len(found)


def _versions(batch: Any) -> list[int]:
    """How often each tensor of a batch was written to; tensors made in inference mode do not count that."""
    return [value._version for value in tensors_in(batch) if not value.is_inference()]


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, not even the caller's, and no TensorFloat-32, which keeps ten bits of the mantissa."""
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":
            matmul = torch.backends.cuda.matmul
            stack.callback(setattr, matmul, "allow_tf32", matmul.allow_tf32)
            matmul.allow_tf32 = False
            stack.enter_context(torch.backends.cudnn.flags(allow_tf32=False))
        yield


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Compiled modules run as they were written: a compiled graph does not see hooks that came after it."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or "_orig_mod" in module._modules
        for module in model.modules()
    )
    with torch.compiler.set_stance("force_eager") if compiled else ExitStack():
        yield

"""The batch contract: the only place where a model and a batch meet.

A loader is anything that can be iterated again and again (a DataLoader, a list, our in-memory loader).
``batch_fn(model, batch) -> Output`` turns a batch into per-example losses.
"""

from closerlook.batches.contract import (
    BatchFn,
    Feed,
    Output,
    autocast_dtype,
    classification,
    feed_for,
    inputs_and_targets,
)
from closerlook.batches.extra import without_extra
from closerlook.batches.loaders import (
    Loader,
    batches_of,
    check_loader,
    generators_kept,
    own_generators,
    seed_all,
    seed_torch,
)
from closerlook.batches.structure import copied, identical, lengths, parts, tensors_in, to_device

__all__ = [
    "BatchFn", "Feed", "Loader", "Output", "autocast_dtype", "batches_of", "check_loader", "classification", "copied",
    "feed_for", "generators_kept", "identical", "inputs_and_targets", "lengths", "own_generators", "parts", "seed_all",
    "seed_torch", "tensors_in", "to_device", "without_extra",
]  # fmt: skip

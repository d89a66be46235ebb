"""Batches from tensors in memory, in an order that can be made again from any batch on."""

from collections.abc import Iterator

import torch
from torch import Tensor

from closerlook.data.augment import Augment
from closerlook.data.seeds import generator, permutation
from closerlook.errors import LoaderError


class TensorBatches:
    """A re-iterable loader of batches ``(inputs, targets)``, or ``(inputs, targets, extra)``.

    Everything random is a function of the seeds, the epoch and the number of the batch: the order is drawn from
    (order_seed, epoch), the augmentation of batch b from (augment_seed, epoch, b). So any batch can be made again
    without the ones before it, two passes over the same epoch are equal byte for byte, and the global generators are
    never touched. The epoch changes by :meth:`set_epoch` only.

    Inputs of 4 dimensions are handed out in ``channels_last`` memory format. Batches are copies: a caller who changes
    one in place does not change the data.

    Parameters
    ----------
    inputs, targets
        [n, ...] and [n, ...], on one device.
    shuffle
        A new order every epoch; otherwise the order of `inputs`.
    augment
        ``augment(inputs, generator)``, e.g. :class:`closerlook.data.CropFlip`, applied to each batch.
    drop_last
        Leave out a last batch of fewer than `batch_size` examples.
    extra
        [n, ...], handed out as it is with each example whatever the augmentation does, such as a teacher's logits. The
        default batch function takes such batches as ``closerlook.batches.without_extra()``.

    Raises
    ------
    LoaderError
        The lengths differ, or no batch comes out.

    Examples
    --------
    >>> loader = TensorBatches(torch.zeros(10, 1, 8, 8), torch.zeros(10, dtype=torch.int64), 4, shuffle=True)
    >>> [len(targets) for _, targets in loader], len(list(loader.from_batch(2)))
    ([4, 4, 2], 1)
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        order_seed: int = 0,
        augment: Augment | None = None,
        augment_seed: int = 0,
        drop_last: bool = False,
        extra: Tensor | None = None,
    ):
        if len(inputs) != len(targets):
            raise LoaderError(f"{len(inputs)} inputs and {len(targets)} targets: every input needs one target")
        if extra is not None and len(extra) != len(inputs):
            raise LoaderError(f"{len(inputs)} inputs and {len(extra)} rows of extra: every input needs one row")
        self.inputs = inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
        self.targets, self.extra = targets, extra
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.order_seed, self.augment, self.augment_seed = order_seed, augment, augment_seed
        self.epoch = 0
        if batch_size < 1 or len(self) < 1:
            raise LoaderError(f"{len(inputs)} examples in batches of {batch_size} (drop_last={drop_last}): no batch")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and augmentation come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        whole, rest = divmod(len(self.inputs), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """The batches of the present epoch."""
        return self.from_batch(0)

    def from_batch(self, start: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches of the present epoch from number `start` on, without making the earlier ones."""
        epoch, order = self.epoch, self._order()
        for number in range(start, len(self)):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size].to(self.inputs.device)
            inputs = self._images(chosen)
            if self.augment is not None:
                inputs = self.augment(inputs, generator(self.augment_seed, epoch, number))
            beside = () if self.extra is None else (self.extra[chosen],)
            yield inputs, self.targets[chosen], *beside

    def _order(self) -> Tensor:
        n = len(self.inputs)
        return permutation(n, self.order_seed, self.epoch) if self.shuffle else torch.arange(n)

    def _images(self, chosen: Tensor) -> Tensor:
        if self.inputs.ndim != 4:
            return self.inputs[chosen]
        # index_select returns a contiguous tensor: with channels moved last before it, that is channels_last. With a
        # single channel .contiguous() would leave strides that convolutions take for the other format.
        return self.inputs.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)

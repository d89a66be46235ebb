"""Batches that can be made again, and augmentation of whole batches against a loop over images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closerlook.data import CropFlip, TensorBatches
from closerlook.data.seeds import generator, permutation
from closerlook.errors import LoaderError, UsageError

N = 23


def batches(**options) -> TensorBatches:
    images = torch.arange(N * 3 * 4 * 5, dtype=torch.float32).reshape(N, 3, 4, 5)
    return TensorBatches(images, torch.arange(N), options.pop("batch_size", 5), **options)


def same(left, right) -> bool:
    left, right = list(left), list(right)
    return len(left) == len(right) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("augment", [None, CropFlip(2)])
def test_the_rest_of_an_epoch_is_made_without_its_start(shuffle: bool, augment) -> None:
    loader = batches(shuffle=shuffle, augment=augment)
    loader.set_epoch(3)
    whole = list(loader)
    for start in range(len(loader) + 1):
        assert same(loader.from_batch(start), whole[start:])


def test_passes_are_equal_and_leave_the_global_generator_alone() -> None:
    loader = batches(shuffle=True, augment=CropFlip(1))
    before = torch.get_rng_state()
    first = list(loader)
    torch.rand(5)
    assert same(first, loader)
    torch.set_rng_state(before)
    list(loader)
    assert torch.equal(before, torch.get_rng_state())


def test_order_and_augmentation_have_their_own_seeds() -> None:
    def targets(loader: TensorBatches) -> list[int]:
        return torch.cat([y for _, y in loader]).tolist()

    plain = batches(shuffle=True, augment=CropFlip(1))
    order, augment = batches(shuffle=True, order_seed=1), batches(shuffle=True, augment=CropFlip(1), augment_seed=1)
    assert targets(plain) == targets(augment)
    assert targets(plain) != targets(order)
    assert not same(plain, augment)
    first = targets(plain)
    plain.set_epoch(1)
    assert targets(plain) != first
    assert sorted(targets(plain)) == list(range(N))


def test_an_iteration_keeps_the_epoch_it_began_with() -> None:
    loader = batches(shuffle=True, augment=CropFlip(1))
    whole = list(loader)
    running = iter(loader.from_batch(0))
    first = next(running)
    loader.set_epoch(1)
    assert same([first, *running], whole)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [5, 5, 5, 5, 3]), (True, [5, 5, 5, 5])])
def test_the_length_is_the_number_of_batches(drop_last: bool, sizes: list[int]) -> None:
    loader = batches(drop_last=drop_last)
    assert [len(y) for _, y in loader] == sizes
    assert len(loader) == len(sizes)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", [None, CropFlip(1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_come_channels_last(channels: int, augment, layout: torch.memory_format) -> None:
    images = torch.randn(6, channels, 4, 5).contiguous(memory_format=layout)
    inputs, _ = next(iter(TensorBatches(images, torch.zeros(6), 4, augment=augment)))
    # With one channel is_contiguous() is true of both formats: the strides say which one a convolution will see.
    assert inputs.stride() == (20 * channels, 1, 5 * channels, channels)


def test_vectors_pass_through() -> None:
    rows = torch.randn(6, 2)
    assert torch.equal(torch.cat([x for x, _ in TensorBatches(rows, torch.zeros(6), 4)]), rows)


def test_batches_are_copies() -> None:
    loader = batches()
    for inputs, targets in loader:
        inputs.zero_()
        targets.zero_()
    assert same(loader, batches())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch_size": 0}, "no batch"), ({"batch_size": 50, "drop_last": True}, "23 examples in batches of 50")],
)
def test_no_batch_is_refused(options: dict, message: str) -> None:
    with pytest.raises(LoaderError, match=message):
        batches(**options)


def test_lengths_must_agree() -> None:
    with pytest.raises(LoaderError, match="3 inputs and 2 targets"):
        TensorBatches(torch.zeros(3, 1), torch.zeros(2), 1)


def crop_flip_by_loop(images: Tensor, padding: int, draws: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    out = torch.empty_like(images)
    _, channels, height, width = images.shape
    for i, image in enumerate(images):
        padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=images.dtype)
        padded[:, padding : padding + height, padding : padding + width] = image
        top, left, mirrored = (int(draw[i]) for draw in draws)
        crop = padded[:, top : top + height, left : left + width]
        out[i] = crop.flip(2) if mirrored else crop
    return out


@settings(deadline=None, max_examples=50)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    padding=st.integers(0, 4),
    flip=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_crop_and_flip_equal_the_loop_over_images(shape, padding: int, flip: bool, seed: int) -> None:
    images = torch.randn(shape, generator=generator(seed))
    kept = images.clone()
    augment = CropFlip(padding, flip)
    draws = augment.draw(len(images), generator(seed, 1))
    assert torch.equal(augment(images, generator(seed, 1)), crop_flip_by_loop(images, padding, draws))
    assert torch.equal(images, kept)


def test_draws_are_uniform_over_places_and_mirrors() -> None:
    top, left, mirrored = CropFlip(padding=4).draw(90_000, generator(0))
    for edge in (top, left):
        assert torch.bincount(edge, minlength=9).sub(10_000).abs().max() < 500
    assert abs(float(mirrored.float().mean()) - 0.5) < 0.01
    assert not CropFlip(flip=False).draw(100, generator(0))[2].any()


@pytest.mark.parametrize(("shape", "padding"), [((2, 3), 4), ((2, 1, 4, 4), -1)])
def test_crop_flip_wants_images(shape: tuple[int, ...], padding: int) -> None:
    with pytest.raises(UsageError, match=r"needs images \[n, c, h, w\]"):
        CropFlip(padding)(torch.zeros(shape), generator(0))


def test_streams_of_neighbouring_numbers_differ() -> None:
    names = [(seed, epoch) for seed in range(20) for epoch in range(20)]
    assert len({tuple(permutation(50, *name).tolist()) for name in names}) == len(names)
    assert len({generator(*name).initial_seed() for name in names}) == len(names)


def test_an_order_never_changes() -> None:
    # Which images a seed trains on is part of stored results: this order must be the same on every version.
    assert permutation(8, 100).tolist() == [0, 3, 5, 4, 1, 6, 7, 2]


def test_seeds_count_from_zero() -> None:
    with pytest.raises(UsageError, match="count from 0"):
        permutation(3, -1)

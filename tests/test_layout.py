"""The memory format in which a network computes: asked for, tried on one batch, given up only when it must be."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import closerlook as cl
from closerlook.batches import Feed, Output, classification
from closerlook.data import TensorBatches
from closerlook.errors import LoaderError
from closerlook.layout import fitting_layout
from conftest import Batch, digit_batches, small_net

FORMATS = [torch.contiguous_format, torch.channels_last, torch.preserve_format]


class Views(nn.Module):
    """Flattens by a view, as many networks do: it works in the contiguous format alone."""

    def __init__(self, parts: nn.Sequential) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        maps = self.parts[:-2](x)
        return self.parts[-1](maps.view(maps.size(0), -1))


class BackwardViews(torch.autograd.Function):
    """The same in the backward pass only."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return maps.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.view(grad.size(0), -1).view(grad.shape)


def feed(batch_fn: Callable[[nn.Module, Any], Output] = classification) -> Feed:
    return Feed(torch.device("cpu"), batch_fn)


def through(maps: Callable[[Tensor], Tensor]) -> nn.Sequential:
    model = small_net()
    model.relu2.register_forward_hook(lambda module, inputs, output: maps(output))
    return model


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("asked", FORMATS)
def test_what_runs_gets_what_was_asked_for(asked: torch.memory_format, gradients: bool) -> None:
    assert fitting_layout(small_net(), digit_batches(), feed(), asked, gradients) == asked


@pytest.mark.parametrize("own", FORMATS[:2])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_network_of_views_is_contiguous(gradients: bool, own: torch.memory_format) -> None:
    model = Views(small_net()).to(memory_format=own)
    assert fitting_layout(model, digit_batches(), feed(), gradients=gradients) == torch.contiguous_format


def test_a_backward_pass_of_views_matters_only_where_it_is_needed() -> None:
    model = through(BackwardViews.apply)
    assert fitting_layout(model, digit_batches(), feed()) == torch.channels_last
    # The gradient that comes from pooling follows the maps' own layout.
    assert fitting_layout(model, digit_batches(), feed(), gradients=True) == torch.contiguous_format


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory_format", FORMATS[:2])
def test_images_that_lie_channels_last_decide_nothing(memory_format: torch.memory_format, channels: int) -> None:
    """A convolution follows its input as well: our own loaders hand out channels_last."""
    images = torch.randn(24, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    loader, seen = TensorBatches(images, torch.arange(24) % 10, 8), list[bool]()
    assert next(iter(loader))[0].is_contiguous(memory_format=torch.channels_last)

    def network(flatten: Callable[[Tensor], Tensor]) -> nn.Module:
        class Flat(nn.Module):
            def forward(self, maps: Tensor) -> Tensor:
                seen.append(maps.is_contiguous(memory_format=memory_format))
                return flatten(maps)

        return nn.Sequential(nn.Conv2d(channels, 4, 3), Flat(), nn.Linear(144, 10))

    model = network(lambda maps: maps.flatten(1))
    curve = cl.connect(model, *(copy.deepcopy(model) for _ in range(2)), loader, epochs=1, memory_format=memory_format)
    cl.train(model, loader, lr=0.1, epochs=1, memory_format=memory_format)
    cl.profile(model, curve, loader, points=2, memory_format=memory_format)
    assert len(seen) > 9
    assert all(seen)
    viewing = network(lambda maps: maps.view(len(maps), -1))
    assert fitting_layout(viewing, loader, feed(), memory_format, gradients=True) == torch.contiguous_format
    for part in (cl.train(viewing, loader, lr=0.1, epochs=1), cl.profile(viewing, curve, loader, points=2)):
        assert part.to_dict()


def test_three_dimensional_convolutions_are_tried_in_their_own_format() -> None:
    seen: list[tuple[int, ...]] = []

    def looking(model: nn.Module, batch: Batch) -> Output:
        seen.append(model[0].weight.stride())
        return classification(model, batch)

    model = nn.Sequential(nn.Conv3d(2, 3, 3), nn.Flatten(), nn.Linear(24, 10))
    batches = [(torch.zeros(4, 2, 4, 4, 4), torch.zeros(4, dtype=torch.long))]
    assert fitting_layout(model, batches, feed(looking)) == torch.channels_last
    assert seen == [(54, 1, 18, 6, 2)]


@pytest.mark.parametrize("asked", FORMATS)
def test_without_maps_and_without_choice_nothing_is_run(asked: torch.memory_format) -> None:
    def never(model: nn.Module, batch: Batch) -> Output:
        raise AssertionError

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert fitting_layout(model, digit_batches(), feed(never), asked) == asked
    if asked != torch.channels_last:
        assert fitting_layout(small_net(), digit_batches(), feed(never), asked) == asked
    assert fitting_layout(small_net(), [], feed(never), asked) == asked


@pytest.mark.parametrize("error", [RuntimeError("mine"), ValueError("mine"), LoaderError("mine")])
def test_an_error_that_is_not_about_layouts_surfaces_as_it_is(error: Exception) -> None:
    def failing(model: nn.Module, batch: Batch) -> Output:
        raise error

    with pytest.raises(type(error)) as raised:
        fitting_layout(small_net(), digit_batches(), feed(failing))
    assert raised.value is error
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None


def test_of_two_errors_the_contiguous_one_is_told() -> None:
    model = Views(small_net())
    model.parts[-1] = nn.Linear(31, 10)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fitting_layout(model, digit_batches(), feed())


def test_one_shot_loaders_are_refused() -> None:
    with pytest.raises(LoaderError, match="one-shot"):
        fitting_layout(small_net(), iter(digit_batches()), feed())


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("own", FORMATS[:2])
def test_everything_comes_back_as_it_was(own: torch.memory_format, failing: bool, gradients: bool) -> None:
    model = small_net().to(memory_format=own)
    model.relu2.register_forward_hook(lambda module, inputs, output: nn.functional.dropout(output))
    model.norm1.eval()
    model.conv1.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    inputs, targets = (torch.cat(part) for part in zip(*digit_batches(), strict=True))
    loader = TensorBatches(inputs, targets, 20, shuffle=True)
    loader.set_epoch(3)

    def batch_fn(model: nn.Module, batch: Batch) -> Output:
        if failing:
            classification(model, batch)
            raise RuntimeError
        return classification(model, batch)

    def look() -> dict[str, Any]:
        return {
            "state": {name: value.clone() for name, value in model.state_dict().items()},
            "strides": [value.stride() for value in model.parameters()],
            "memory": [value.data_ptr() for value in (*model.parameters(), *model.buffers())],
            "frozen": [value.requires_grad for value in model.parameters()],
            "grads": [None if value.grad is None else value.grad.sum().item() for value in model.parameters()],
            "modes": [module.training for module in model.modules()],
            "epoch": loader.epoch,
        }

    before, generator = copy.deepcopy(look()), torch.get_rng_state()
    try:
        fitting_layout(model, loader, feed(batch_fn), gradients=gradients)
    except RuntimeError:
        assert failing
    after = look()
    states = before.pop("state"), after.pop("state")
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert after == before
    assert torch.equal(generator, torch.get_rng_state())

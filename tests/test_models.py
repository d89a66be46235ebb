"""Networks: published sizes, gradients everywhere, weights that follow from the seed alone."""

import math

import pytest
import torch
from torch import nn

from closerlook.errors import UsageError
from closerlook.models import MODELS, VGG, build, describe, mlp, vgg
from closerlook.models.vgg import Conv3x3

PUBLISHED = {
    (11, False): 132_863_336, (13, False): 133_047_848, (16, False): 138_357_544, (19, False): 143_667_240,
    (11, True): 132_868_840, (13, True): 133_053_736, (16, True): 138_365_992, (19, True): 143_678_248,
}  # fmt: skip


def count(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


@pytest.mark.parametrize(("depth", "batch_norm"), PUBLISHED)
def test_parameters_are_the_published_ones(depth: int, batch_norm: bool) -> None:
    with torch.device("meta"):
        model = vgg(depth, batch_norm=batch_norm, image_size=224, classes=1000)
        assert count(model) == PUBLISHED[depth, batch_norm]
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules()) == depth


@pytest.mark.parametrize("size", [1, 4, 8, 16, 28, 32])
@pytest.mark.parametrize("head", ["paper", "linear"])
def test_every_image_size_fits(size: int, head: str) -> None:
    model = build("vgg11", width=1 / 16, in_channels=1, image_size=size, head=head, classes=7)
    assert model(torch.zeros(2, 1, size, size)).shape == (2, 7)


def test_16x16_drops_only_the_last_pool() -> None:
    pools = [name for name, _ in vgg(11, width=1 / 16, image_size=16).features.named_children() if "pool" in name]
    assert pools == ["pool1", "pool2", "pool3", "pool4"]


def test_width_multiplies_channels_and_head() -> None:
    model = vgg(11, width=0.25)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [16, 32, 64, 64, 128, 128, 128, 128]
    assert model.head.fc2.weight.shape == (1024, 1024)


EVERYWHERE = {"head_norm": True}
PLACES: dict[str, tuple[str, dict]] = {
    "none": ("vgg11", {}),
    "convolutions": ("vgg11_bn", {}),
    "everywhere": ("vgg11_bn", EVERYWHERE),
    "all but the first block": ("vgg11_bn", {**EVERYWHERE, "bare_blocks": 1}),
    "head": ("vgg11", EVERYWHERE),
}


def placed(place: str, **options) -> VGG:
    name, where = PLACES[place]
    return build(name, **{"width": 1 / 8, "image_size": 16, "in_channels": 1, **where, **options})


def test_batch_norm_stands_where_it_is_asked_for() -> None:
    convolutions, head = [f"features.norm{number}" for number in range(1, 9)], ["head.norm1", "head.norm2"]
    expected = {
        "none": [], "convolutions": convolutions, "everywhere": convolutions + head,
        "all but the first block": convolutions[1:] + head, "head": head,
    }  # fmt: skip
    for place, norms in expected.items():
        assert [name for name, _ in placed(place).named_modules() if "norm" in name] == norms, place
    two = [name for name, _ in vgg(16, width=1 / 8, batch_norm=True, bare_blocks=2).named_modules() if "norm" in name]
    assert two == [f"features.norm{number}" for number in range(5, 14)]


@pytest.mark.parametrize("init", ["paper", "he", "torch"])
def test_a_seed_gives_the_same_weights_wherever_norms_stand(init: str) -> None:
    bare = dict(placed("none", seed=2, init=init).named_parameters())
    assert sum(name.endswith("weight") for name in bare) == 11
    for place in PLACES:
        model = placed(place, seed=2, init=init)
        others = {name: weights for name, weights in model.named_parameters() if "norm" not in name}
        assert list(others) == list(bare)
        assert all(torch.equal(weights, bare[name]) for name, weights in others.items()), place


def test_the_heads_norms_stand_between_linear_layers_and_relus() -> None:
    model = placed("everywhere", seed=1, dropout=0.0).double().train()
    images = torch.randn(6, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = model.features(images).flatten(1)
    for fc in (model.head.fc1, model.head.fc2):
        x = fc(x)
        x = ((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()).clamp(min=0)
    # Float64 rounding of a dozen sums over at most 512 products.
    torch.testing.assert_close(model(images), model.head.fc3(x), rtol=0, atol=1e-10)


def test_the_small_head_of_the_paper_has_two_hidden_layers_of_1024() -> None:
    head = vgg(11, width=0.25, in_channels=1, image_size=16, dropout=0.0, init="he", batch_norm=True).head
    assert [tuple(fc.weight.shape) for fc in (head.fc1, head.fc2, head.fc3)] == [(1024, 128), (1024, 1024), (10, 1024)]
    x = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    assert torch.equal(head.train()(x), head.eval()(x))
    assert torch.equal(before, torch.get_rng_state())  # no dropout, and no draws either


@pytest.mark.parametrize("place", PLACES)
def test_wherever_norms_stand_every_parameter_gets_a_gradient(place: str) -> None:
    model = placed(place, init="he").eval()
    images = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(model(images), torch.arange(32) % 10).backward()
    assert all(weights.grad is not None and weights.grad.abs().max() > 0 for weights in model.parameters())


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("init", ["paper", "he", "torch"])
def test_every_parameter_gets_a_gradient(batch_norm: bool, init: str) -> None:
    # In eval mode: batch norm in training mode cancels the bias before it, and dropout would hide units by chance.
    model = build(f"vgg11{'_bn' if batch_norm else ''}", width=1 / 8, image_size=16, init=init).eval()
    images = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(model(images), torch.arange(32) % 10).backward()
    for name, weights in model.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.abs().max() > 0, name


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_on_small_maps_a_convolution_is_the_usual_one(layout: torch.memory_format, size: tuple[int, int]) -> None:
    layer = Conv3x3(6, 5).double().to(memory_format=layout)
    numbers = torch.Generator().manual_seed(0)
    maps = torch.randn(7, 6, *size, dtype=torch.float64, generator=numbers).to(memory_format=layout).requires_grad_()
    values, grads = [], []
    for forward in (layer.forward, super(Conv3x3, layer).forward):
        given = forward(maps)
        values.append(given)
        grads.append(torch.autograd.grad(given.sin().sum(), (maps, layer.weight, layer.bias)))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-13)
    for own, usual in zip(*grads, strict=True):
        torch.testing.assert_close(own, usual, rtol=0, atol=1e-13)
    if max(size) <= 2:  # as weights lie in training: one pass to add
        assert grads[0][1].is_contiguous(memory_format=torch.channels_last)


def test_convolutions_are_channels_last_and_so_is_what_they_give() -> None:
    model = vgg(11, width=1 / 8, in_channels=1, image_size=16, batch_norm=True)
    for weights in model.parameters():
        if weights.ndim == 4:
            assert weights.is_contiguous(memory_format=torch.channels_last)
    assert model.features(torch.zeros(2, 1, 16, 16)).is_contiguous(memory_format=torch.channels_last)


def test_initial_spread_is_the_schemes() -> None:
    def spread(init: str, layer: str) -> float:
        return float(models[init].get_parameter(f"{layer}.weight").detach().std())

    models = {init: vgg(11, width=0.5, init=init) for init in ("paper", "he")}
    conv, linear = models["he"].features.conv3, models["he"].head.fc1
    assert (conv.in_channels, conv.out_channels) == (64, 128)
    assert spread("paper", "features.conv3") == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.01)
    assert spread("he", "features.conv3") == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.01)
    assert spread("paper", "head.fc1") == pytest.approx(0.01, rel=0.01)
    assert spread("he", "head.fc1") == pytest.approx(math.sqrt(2 / linear.in_features), rel=0.01)
    for model in models.values():
        assert not any(weights.any() for name, weights in model.named_parameters() if name.endswith("bias"))
    assert vgg(11, width=1 / 8, init="torch").features.conv1.bias.any()


@pytest.mark.parametrize("init", ["paper", "he", "torch"])
def test_weights_follow_from_the_seed_alone(init: str) -> None:
    options = {"width": 1 / 16, "image_size": 8, "init": init}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build("vgg11", seed=5, **options).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    again, other = (build("vgg11", seed=seed, **options).state_dict() for seed in (5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.conv1.weight"], other["features.conv1.weight"])


def test_the_generator_comes_back_after_an_exception() -> None:
    before = torch.get_rng_state()
    with pytest.raises(UsageError):
        build("torch:rand", size=(3,))
    assert torch.equal(before, torch.get_rng_state())


def test_another_image_size_is_named() -> None:
    with pytest.raises(UsageError, match=r"built for 16x16 images and got \(2, 3, 32, 32\)"):
        vgg(11, width=1 / 16, image_size=16)(torch.zeros(2, 3, 32, 32))


def test_mlp_flattens() -> None:
    model = mlp(2 * 3 * 4, (5, 6), classes=7)
    assert model(torch.zeros(8, 2, 3, 4)).shape == (8, 7)
    assert [name for name, _ in model.named_children()] == ["flatten", "fc1", "relu1", "fc2", "relu2", "fc3"]
    assert mlp(4, ())(torch.zeros(1, 4)).shape == (1, 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vgg(12), "no VGG-12; choose a depth of 11, 13, 16, 19"),
        (lambda: vgg(head="wide"), "choose paper or linear"),
        (lambda: vgg(width=0), "must be positive"),
        (lambda: vgg(head="linear", head_norm=True), "no place in a linear head; choose head='paper'"),
        (lambda: vgg(batch_norm=True, bare_blocks=6), "bare_blocks 6 must be from 0 to 5"),
        (lambda: vgg(batch_norm=True, bare_blocks=-1), "bare_blocks -1 must be from 0 to 5"),
        (lambda: build("vgg11", bare_blocks=1), "choose batch_norm=True, as in vgg11_bn"),
        (lambda: mlp(4, init="zeros"), "choose paper, he or torch"),
        (lambda: mlp(4, (0,)), "at least one unit"),
        (lambda: build("vg11"), "did you mean vgg11"),
        (lambda: build("resnet"), "did you mean resnet8, resnet56, resnet20"),
        (lambda: build("transformer"), "shallow_cnn, mlp"),
        (lambda: build("vgg11_bn", batch_norm=False), "no option batch_norm; it takes width, head"),
        (lambda: build("mlp"), "mlp needs in_features"),
    ],
)
def test_wrong_use_names_the_repair(call, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_a_target_is_built_from_the_seed() -> None:
    torch.manual_seed(0)
    first, again = (build("torch.nn:Linear", seed=4, in_features=3, out_features=2) for _ in range(2))
    assert torch.equal(first.weight, again.weight)
    with pytest.raises(UsageError, match="returned a device, not a"):
        build("torch:device", type="cpu")


def test_describe_lists_every_network() -> None:
    rows = {row["name"]: row for row in describe()}
    assert list(rows) == list(MODELS)
    assert rows["vgg11"]["parameters"] == count(vgg(11))
    assert "in_features" in rows["mlp"]["options"]
    assert isinstance(build("vgg13", width=1 / 16), VGG)

"""Residual and shallow networks: published sizes, and outputs written out again from the published definitions."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from closerlook.errors import UsageError
from closerlook.models import build, resnet, resnet18
from closerlook.models.residual import norm_layer

# He et al. 2015 print 0.27, 0.85 and 1.7 million; the exact numbers follow from 16-32-64 channels and n blocks a stage.
PUBLISHED = {
    "resnet8": 75_290, "resnet20": 269_722, "resnet56": 853_018, "resnet110": 1_727_962, "resnet18": 11_173_962,
}  # fmt: skip
RESIDUAL = [*PUBLISHED, "preresnet110"]
# Float64 rounding through at most 110 layers of sums over at most 4,608 products stays far below this.
EXACT = {"rtol": 0, "atol": 1e-10}


def count(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def counted_by_hand(n: int) -> int:
    """Parameters of 6n + 2 layers: 3x3 kernels, two numbers per normed channel, a classifier; shortcuts have none."""
    stem, classifier = 27 * 16 + 2 * 16, 64 * 10 + 10
    per_stage = [(2 * n - 1) * 9 * units**2 + 9 * units * below + 2 * n * 2 * units
                 for below, units in ((16, 16), (16, 32), (32, 64))]  # fmt: skip
    return stem + classifier + sum(per_stage)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        assert count(build(name)) == PUBLISHED[name]


@pytest.mark.parametrize(("depth", "n"), [(8, 1), (14, 2), (20, 3), (56, 9), (110, 18)])
def test_a_depth_is_its_layers_with_weights(depth: int, n: int) -> None:
    with torch.device("meta"):
        model = resnet(depth)
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules()) == depth == 6 * n + 2
    assert count(model) == counted_by_hand(n)


def test_preresnet110_is_that_of_the_papers_on_mode_connectivity() -> None:
    with torch.device("meta"):
        model = build("preresnet110")
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    # 12 bottlenecks in each of 3 stages, the stem, the classifier; and one projection a stage.
    assert len(convolutions) + 1 - 3 == 110
    kernels = {stage: (units * below + 9 * units**2 + 4 * units**2, units * 4 * units + 9 * units**2 + 4 * units**2)
               for stage, (below, units) in enumerate(((16, 16), (64, 32), (128, 64)))}  # fmt: skip
    projections = 16 * 64 + 64 * 128 + 128 * 256
    norms = sum(2 * (below + 11 * 4 * units + 12 * 2 * units) for below, units in ((16, 16), (64, 32), (128, 64)))
    hidden = sum(first + 11 * other for first, other in kernels.values())
    assert count(model) == 27 * 16 + hidden + projections + norms + 2 * 256 + 256 * 10 + 10


def trained_looking(name: str, **options) -> nn.Module:
    """The network in float64 and eval mode, with norms that have moved from their initial values."""
    model = build(name, seed=3, **options).double().eval()
    source = torch.Generator().manual_seed(1)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=source)
        elif "norm" in key and value.is_floating_point():
            value.normal_(float("running" not in key and key.endswith("weight")), 0.2, generator=source)
    return model


class Written:
    """The networks as calls of torch.nn.functional on a state dict."""

    def __init__(self, model: nn.Module, norm: str = "batch"):
        self.state, self.kind = model.state_dict(), norm

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return functional.conv2d(x, weight, None, stride, padding=weight.shape[-1] // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        s = self.state
        if self.kind == "group":
            return functional.group_norm(x, 8, s[f"{name}.weight"], s[f"{name}.bias"])
        mean, var = s[f"{name}.running_mean"], s[f"{name}.running_var"]
        return functional.batch_norm(x, mean, var, s[f"{name}.weight"], s[f"{name}.bias"])

    def classify(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ self.state["head.fc1.weight"].T + self.state["head.fc1.bias"]

    def basic(self, x: Tensor, at: str, stride: int) -> Tensor:
        y = functional.relu(self.norm(self.conv(x, f"{at}.branch.conv1", stride), f"{at}.branch.norm1"))
        y = self.norm(self.conv(y, f"{at}.branch.conv2"), f"{at}.branch.norm2")
        if y.shape == x.shape:
            return functional.relu(y + x)
        if f"{at}.shortcut.conv.weight" in self.state:
            return functional.relu(y + self.norm(self.conv(x, f"{at}.shortcut.conv", stride), f"{at}.shortcut.norm"))
        y[:, : x.shape[1]] += x[:, :, ::stride, ::stride]
        return functional.relu(y)

    def bottleneck(self, x: Tensor, at: str, stride: int) -> Tensor:
        y = x
        for number, each in ((1, 1), (2, stride), (3, 1)):
            y = self.conv(functional.relu(self.norm(y, f"{at}.branch.norm{number}")), f"{at}.branch.conv{number}", each)
        return y + (self.conv(x, f"{at}.shortcut.conv", stride) if y.shape != x.shape else x)

    def resnet(self, x: Tensor, stages: int, blocks: int) -> Tensor:
        x = functional.relu(self.norm(self.conv(x, "features.conv"), "features.norm"))
        for stage in range(1, stages + 1):
            for block in range(1, blocks + 1):
                x = self.basic(x, f"features.stage{stage}.block{block}", 1 + (stage > 1 and block == 1))
        return self.classify(x)

    def preresnet(self, x: Tensor) -> Tensor:
        x = self.conv(x, "features.conv")
        for stage in range(1, 4):
            for block in range(1, 13):
                x = self.bottleneck(x, f"features.stage{stage}.block{block}", 1 + (stage > 1 and block == 1))
        return self.classify(functional.relu(self.norm(x, "features.norm")))

    def shallow(self, x: Tensor) -> Tensor:
        s = self.state
        for number in (1, 2):
            convolved = functional.conv2d(
                x, s[f"features.conv{number}.weight"], s[f"features.conv{number}.bias"], padding=2
            )
            x = functional.relu(functional.max_pool2d(convolved, 2))
        x = x.flatten(1)
        for number in (1, 2, 3):
            x = x @ s[f"head.fc{number}.weight"].T + s[f"head.fc{number}.bias"]
            x = functional.relu(x) if number < 3 else x
        return x


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize(("name", "stages", "blocks"), [("resnet8", 3, 1), ("resnet20", 3, 3), ("resnet18", 4, 2)])
def test_outputs_are_those_of_the_definition(name: str, stages: int, blocks: int, size: int) -> None:
    model = trained_looking(name, in_channels=1, width=0.5)
    images = torch.randn(3, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(images), Written(model).resnet(images, stages, blocks), **EXACT)


def test_outputs_with_group_norm_are_those_of_the_definition() -> None:
    model = trained_looking("resnet8", norm="group", in_channels=3)
    images = torch.randn(3, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = Written(model, "group").resnet(images, 3, 1)
    torch.testing.assert_close(model(images), expected, **EXACT)
    assert not any("running" in name for name in model.state_dict())
    # Each image has statistics of its own: one alone gives what it gives among others, in training mode too.
    torch.testing.assert_close(model.train()(images[:1]), expected[:1], **EXACT)


def test_outputs_of_preresnet110_are_those_of_the_definition() -> None:
    model = trained_looking("preresnet110", width=0.25)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(images), Written(model).preresnet(images), **EXACT)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_outputs_of_the_student_are_those_of_the_definition(size: int) -> None:
    model = trained_looking("shallow_cnn", image_size=size, width=0.25)
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(images), Written(model).shallow(images), **EXACT)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "preresnet110", "shallow_cnn"])
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (28, 1), (32, 3)])
def test_sizes_and_channels(name: str, size: int, channels: int) -> None:
    sized = {"image_size": size} if name == "shallow_cnn" else {}
    model = build(name, width=1 / 8, in_channels=channels, classes=7, **sized)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "preresnet110", "shallow_cnn"])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = build(name, width=0.25, in_channels=1, **({"image_size": 8} if name == "shallow_cnn" else {}))
    images = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    functional.cross_entropy(model(images), torch.arange(32) % 10).backward()
    for key, weights in model.named_parameters():
        assert weights.grad is not None, key
        assert weights.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", [*RESIDUAL, "shallow_cnn"])
def test_weights_are_channels_last_no_relu_works_in_place_and_the_seed_decides(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (build(name, seed=seed, width=1 / 8).state_dict() for seed in (5, 5, 6))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.fc1.weight"], other["head.fc1.weight"])
    model = build(name, width=1 / 8)
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in model.parameters() if w.ndim == 4)
    assert not any(layer.inplace for layer in model.modules() if isinstance(layer, nn.ReLU))


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "preresnet110"])
def test_maps_stay_channels_last(name: str) -> None:
    model, seen = build(name, width=0.25), []
    for stage in ("stage1", "stage2", "stage3"):
        model.features.get_submodule(stage).register_forward_hook(lambda module, given, maps: seen.append(maps))
    model(torch.zeros(2, 3, 16, 16).contiguous(memory_format=torch.channels_last))
    assert len(seen) == 3
    assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in seen)


def test_eight_groups_or_the_most_that_divide() -> None:
    assert [norm_layer("group", channels).num_groups for channels in (512, 16, 12, 6, 5)] == [8, 8, 4, 2, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resnet(18), "no ResNet-18 of 6n \\+ 2 layers; choose a depth of 8, 14, 20"),
        (lambda: resnet(2), "no ResNet-2 "),
        (lambda: resnet(20, norm="layer"), "unknown norm 'layer'; choose batch or group"),
        (lambda: resnet18(width=0), "width 0, in_channels 3, classes 10 must be positive"),
        (lambda: resnet18(init="zeros"), "choose paper, he or torch"),
        (lambda: build("resnet20", image_size=16), "resnet20 has no option image_size; it takes norm, width"),
        (lambda: build("shallow_cnn", classes=0), "classes 0 must be positive"),
        (lambda: build("shallow_cnn")(torch.zeros(2, 3, 16, 16)), "ShallowCNN was built for 32x32 images"),
    ],
)
def test_wrong_use_names_the_repair(call, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()

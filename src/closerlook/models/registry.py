"""The built-in networks by name."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from closerlook.errors import UsageError
from closerlook.models.initial import seeded
from closerlook.models.mlp import mlp
from closerlook.models.resnet import preresnet110, resnet, resnet18
from closerlook.models.shallow import shallow_cnn
from closerlook.models.target import is_target, load_target
from closerlook.models.vgg import BLOCKS, vgg


@dataclass(frozen=True)
class Entry:
    """A network: its builder, the arguments that its name fixes, one line about it."""

    builder: Callable[..., nn.Module]
    fixed: Mapping[str, Any]
    about: str
    example: Mapping[str, Any] = field(default_factory=dict)

    def options(self) -> list[str]:
        """Names of the arguments that are left to choose."""
        return [name for name in inspect.signature(self.builder).parameters if name not in (*self.fixed, "seed")]


def _vgg(depth: int, batch_norm: bool) -> Entry:
    about = f"VGG-{depth} {'with' if batch_norm else 'without'} batch norm"
    return Entry(vgg, {"depth": depth, "batch_norm": batch_norm}, about)


MODELS: dict[str, Entry] = {
    **{f"vgg{depth}": _vgg(depth, batch_norm=False) for depth in BLOCKS},
    **{f"vgg{depth}_bn": _vgg(depth, batch_norm=True) for depth in BLOCKS},
    **{
        f"resnet{depth}": Entry(resnet, {"depth": depth}, f"CIFAR ResNet-{depth}, parameter-free shortcuts")
        for depth in (8, 20, 56, 110)
    },
    "resnet18": Entry(resnet18, {}, "ResNet-18 with a 3x3 stem, for small images"),
    "preresnet110": Entry(preresnet110, {}, "pre-activated ResNet-110 of bottlenecks, as in mode connectivity"),
    "shallow_cnn": Entry(shallow_cnn, {}, "two convolutions and three linear layers: the paper's student"),
    "mlp": Entry(mlp, {}, "fully connected network", {"in_features": 784}),
}


def build(name: str, *, seed: int = 0, **options: Any) -> nn.Module:
    """A network by built-in name or ``package.module:function``; `seed` decides its initial weights.

    A function of the user's is called with `options` only; whatever it draws from PyTorch's CPU generator while it
    runs follows from `seed`.

    Raises
    ------
    UsageError
        Unknown name (close ones are named) or option (the accepted ones are), options of the wrong kind or size, or a
        function that returns no module.

    Examples
    --------
    >>> build("vgg11_bn", seed=3, width=0.25, head="linear", image_size=16, in_channels=1).image_size
    16
    """
    if is_target(name):
        return _from_target(name, seed, options)
    entry = MODELS.get(name)
    if entry is None:
        close = get_close_matches(name, MODELS, n=3) or list(MODELS)
        raise UsageError(f"no built-in model {name!r}; did you mean {', '.join(close)}, or package.module:function?")
    unknown = sorted(set(options) - set(entry.options()))
    if unknown:
        raise UsageError(f"{name} has no option {', '.join(unknown)}; it takes {', '.join(entry.options())}")
    missing = [option for option in entry.example if option not in options]
    if missing:
        raise UsageError(f"{name} needs {', '.join(missing)}")
    try:
        return entry.builder(**entry.fixed, **options, seed=seed)
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError) as error:
        if isinstance(error, UsageError):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{name} cannot be built with {options}: {reason}") from error


def describe() -> list[dict[str, Any]]:
    """One row per built-in network: name, what it is, its number of parameters as built by default, its options."""
    rows = []
    for name, entry in MODELS.items():
        with torch.device("meta"):
            size = sum(weights.numel() for weights in build(name, **entry.example).parameters())
        rows.append({"name": name, "about": entry.about, "parameters": size, "options": ", ".join(entry.options())})
    return rows


def _from_target(text: str, seed: int, options: Mapping[str, Any]) -> nn.Module:
    function = load_target(text)

    def make() -> nn.Module:
        model = function(**options)
        if not isinstance(model, nn.Module):
            raise UsageError(f"{text} returned a {type(model).__name__}, not a torch.nn.Module")
        return model

    return seeded(make, seed)

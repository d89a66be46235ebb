"""Names of parameters and buffers without what wrappers (torch.compile, DataParallel) put before them."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

# What each wrapper of PyTorch calls the network inside it.
_INSIDE = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
_HIDDEN = "_checkpoint_wrapped_module"  # its wrapper leaves it out of the state dict's names itself
_COUNTER = "n_averaged"  # a buffer of AveragedModel, beside the network that it averages


@dataclass(frozen=True)
class Named:
    """The tensors of a model by plain name: tied ones under each of their names, in the order of PyTorch.

    `persistent` are the names of the buffers that a state dict holds; `stored` maps every name to the one there.
    """

    parameters: dict[str, nn.Parameter]
    buffers: dict[str, Tensor]
    persistent: frozenset[str]
    stored: dict[str, str]

    def state(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers, as a state dict under plain names."""
        kept = {name: value for name, value in self.buffers.items() if name in self.persistent}
        return {**self.parameters, **kept}


def named(model: nn.Module) -> Named:
    """The parameters and buffers of a model by their plain names.

    Only what a wrapper of PyTorch added is left out: a layer that is called ``module`` by its author keeps its name.

    Examples
    --------
    >>> list(named(nn.DataParallel(nn.Sequential(nn.Linear(2, 2)))).parameters)
    ['0.weight', '0.bias']
    """
    parameters: dict[str, nn.Parameter] = {}
    buffers: dict[str, Tensor] = {}
    persistent: set[str] = set()
    stored: dict[str, str] = {}
    for plain, raw, module in _walk(model):
        own = {name: value for name, value in module._parameters.items() if value is not None}
        beside = {name: value for name, value in module._buffers.items() if value is not None}
        parameters |= {plain + name: value for name, value in own.items()}
        buffers |= {plain + name: value for name, value in beside.items()}
        persistent |= {plain + name for name in beside if name not in module._non_persistent_buffers_set}
        stored |= {plain + name: raw + name for name in (*own, *beside)}
    return Named(parameters, buffers, frozenset(persistent), stored)


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a model by plain name, each once, the model itself as ``""``; wrappers are no layers."""
    seen: set[int] = set()
    for plain, _, module in _walk(model):
        if id(module) not in seen and _inside(module) is None:
            yield plain.removesuffix("."), module
        seen.add(id(module))


def _walk(module: nn.Module, plain: str = "", raw: str = "") -> Iterator[tuple[str, str, nn.Module]]:
    yield plain, raw, module
    inside = _inside(module)
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk(
                child, plain if name == inside else f"{plain}{name}.", raw if name == _HIDDEN else f"{raw}{name}."
            )


def _inside(module: nn.Module) -> str | None:
    return next((_INSIDE[kind.__name__] for kind in type(module).__mro__ if _is_wrapper(kind)), None)


def _is_wrapper(kind: type) -> bool:
    return kind.__name__ in _INSIDE and kind.__module__.startswith("torch.")


def fitted(keys: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """The plain name of each key of a state dict, for a model whose plain names are `known`.

    ``_orig_mod.`` goes wherever it stands; ``module.`` goes from the beginning when it is on every key, as often as
    the keys have it more than the model. Anything else may be a true name and stays.

    Examples
    --------
    >>> fitted(["module.head.weight"], {"head.weight"})
    {'module.head.weight': 'head.weight'}
    >>> fitted(["encoder.module.weight"], {"encoder.module.weight"})
    {'encoder.module.weight': 'encoder.module.weight'}
    """
    names = {key: key if key in known else key.replace("_orig_mod.", "") for key in keys}
    if _COUNTER not in known:
        names = {key: name for key, name in names.items() if name != _COUNTER}
    surplus = _depth(names.values()) - _depth(known)
    return {key: name.removeprefix("module." * surplus) for key, name in names.items()}


def _depth(names: Iterable[str]) -> int:
    """How often ``module.`` begins every one of the names."""
    depths = []
    for name in names:
        rest = name
        while rest.startswith("module."):
            rest = rest.removeprefix("module.")
        depths.append((len(name) - len(rest)) // len("module."))
    return min(depths, default=0)

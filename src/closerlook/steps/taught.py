"""What a training takes from other runs: the weights that it begins from, and its teacher."""

from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from closerlook.data import Pair, as_soft_as, permuted_within_class
from closerlook.errors import UsageError
from closerlook.runs.recipe import Teacher, TrainRecipe, Whole
from closerlook.runs.store import RunFolder
from closerlook.steps.points import Resolver
from closerlook.steps.setting import fixed_batches, network, parts
from closerlook.training.interventions import Distil, teacher_logits
from closerlook.weights import loaded, named


def beginning(recipe: TrainRecipe, folder: RunFolder) -> nn.Module:
    """The network as it is before the first step of a training that is no fork.

    Raises
    ------
    PointMissingError
        The run that the weights are from diverged before.
    """
    model = network(recipe.model, recipe.data, recipe.seeds.init)
    return model if recipe.weights is None else taken_over(model, _at(model, recipe.weights, folder), recipe.fresh)


def taken_over(model: nn.Module, other: nn.Module, fresh: tuple[str, ...]) -> nn.Module:
    """A copy of `other` with the parameters and buffers of `model` whose names match one of the patterns `fresh`.

    Raises
    ------
    UsageError
        A pattern matches nothing.

    Examples
    --------
    >>> one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> mixed = taken_over(one, two, ("bias",))
    >>> bool((mixed.weight == two.weight).all() and (mixed.bias == one.bias).all())
    True
    """
    made = loaded(other, other)
    own, into = named(model).state(), named(made).state()
    for pattern in fresh:
        names = [name for name in own if fnmatchcase(name, pattern)]
        if not names:
            raise UsageError(f"no parameter to keep fresh matches {pattern!r}; the names are {', '.join(own)}")
        with torch.no_grad():
            for name in names:
                into[name].copy_(own[name])
    return made


def taught(recipe: TrainRecipe, folder: RunFolder) -> tuple[tuple[Distil, ...], Tensor | None]:
    """The distillation of a recipe, and where the soft targets are fixed, those of each training image.

    Raises
    ------
    PointMissingError
        The teacher's run diverged before.
    """
    told = recipe.teacher
    if told is None:
        return (), None
    model = _at(network(told.model, recipe.data, seed=0), told.point, folder)
    if told.soft == "live":
        return (Distil(model, told.temperature, told.mixing),), None
    images = parts(recipe.data).train
    soft = teacher_logits(model, fixed_batches(images, 500))
    return (Distil(None, told.temperature, told.mixing),), _handed_out(soft, told, images)


def _handed_out(soft: Tensor, told: Teacher, images: Pair) -> Tensor:
    if told.soft == "permuted":
        return soft[permuted_within_class(images.targets, told.seed)]
    return as_soft_as(soft, images.targets, told.temperature) if told.soft == "smoothed" else soft


def _at(model: nn.Module, point: Whole, folder: RunFolder) -> nn.Module:
    return loaded(model, Resolver(model, folder).point(point))

"""A network with other weights, for what takes two networks."""

import copy
from typing import Any

from torch import nn

from closerlook.weights.space import WeightSpace


def loaded(model: nn.Module, weights: Any) -> nn.Module:
    """A copy of the model with the weights of a point, another model, a state dict or a checkpoint's path.

    Buffers come with the weights; a bare point has none and keeps the model's own.

    Raises
    ------
    MismatchError
        Names, shapes or types do not fit.

    Examples
    --------
    >>> one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> bool((loaded(one, two.state_dict()).weight == two.weight).all())
    True
    """
    space = WeightSpace(model)
    made = copy.deepcopy(model)
    made.load_state_dict(space.state_dict(space.point(weights)), strict=False)
    return made

"""The tensor among what a module returned."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from closerlook.errors import LayerError


def tensor_in(output: Any, place: str = "") -> Tensor | None:
    """The tensor at a dotted place such as ``"1.0"`` or ``"last_hidden_state"``; the first one found when it is empty.

    Tuples, lists, mappings and named fields are searched in their order; None when there is no tensor.

    Raises
    ------
    LayerError
        There is no such place; those that there are are named.

    Examples
    --------
    >>> import torch
    >>> tensor_in((torch.zeros(2), {"state": torch.ones(3)}), "1.state")
    tensor([1., 1., 1.])
    """
    for step in place.split(".") if place else ():
        output = _inside(output, step)
    return _first(output)


def _inside(output: Any, step: str) -> Any:
    parts = _parts(output)
    if step in parts:
        return parts[step]
    places = ", ".join(parts) or f"nothing inside a {type(output).__name__}"
    raise LayerError(f"it has no output {step!r}; there is {places}")


def _parts(output: Any) -> dict[str, Any]:
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items()}
    if isinstance(output, tuple | list):
        return {str(number): value for number, value in enumerate(output)}
    return dict(vars(output)) if hasattr(output, "__dataclass_fields__") else {}


def _first(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    return next((found for found in map(_first, _parts(output).values()) if found is not None), None)

"""Pickles read by an unpickler that can build nothing but arrays."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles lists, dicts, bytes and numbers, and NumPy arrays; any other global in the file is refused."""

    _known = {  # noqa: RUF012
        # Named as Python 2 with an old NumPy wrote them; resolved here, so nothing is imported by name.
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """One of the three names that an array needs."""
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs") from None


def read_pickled(path: Path) -> Any:
    """What a pickle of Python 2 holds, its strings as bytes; a damaged one can raise anything."""
    return ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()

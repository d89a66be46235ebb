"""The IDX format of MNIST's files: a magic number, the sizes, then unsigned bytes."""

import math
import struct

import numpy as np

from closerlook.errors import UsageError


def parse(data: bytes, name: str) -> np.ndarray:
    """The uint8 array of an IDX file's (uncompressed) bytes; `name` is for messages.

    The first four bytes are 0, 0, 8 (unsigned byte) and the number of dimensions; then each size as a big-endian
    32-bit integer; then the values, last dimension fastest.

    Raises
    ------
    UsageError
        Another format, or more or fewer values than the sizes say.

    Examples
    --------
    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "two bytes")
    array([7, 9], dtype=uint8)

    References
    ----------
    LeCun, Cortes and Burges, the MNIST database, "file formats".
    """
    dimensions = data[3] if len(data) >= 4 else 0
    start = 4 + 4 * dimensions
    if data[:3] != b"\0\0\x08" or dimensions == 0 or len(data) < start:
        raise UsageError(f"{name} is not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise UsageError(f"{name} holds {len(data) - start} values where its header says {math.prod(shape)}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)

"""Arrays in NumPy's format, .npy: read only if they hold what their header says.

NumPy takes the memory that a header asks for before it looks at the data, and a header may ask for
any number of empty strings without any data at all.
"""

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MAGIC = npy.MAGIC_PREFIX

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_array(data: bytes) -> NDArray[Any]:
    """Read an array. It shares memory with the data, and is read-only.

    Raises:
        ValueError: the data are no array, or longer or shorter than the header says; or the array
            holds Python objects, which are pickles.
    """
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"the version {version} of the .npy format is not that of an array of numbers or texts")
    shape, is_fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("Object arrays are pickles, which are not read: save numbers and texts only")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or not dtype.itemsize or count * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"the header says {shape} of {dtype}, which is not what follows")
    array = np.frombuffer(data, dtype, count, file.tell()) if count else np.empty(0, dtype)
    return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)

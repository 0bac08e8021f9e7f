"""Tensors of the Open Inference Protocol, read into arrays, and arrays written as tensors. No I/O.

Whoever sends a tensor chooses its name, type, shape and contents. Nothing is allocated for a shape
before its contents are known to have as many values.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError
from sealserve.protocol.tables import floats
from sealserve.protocol.text import quoted

MAX_VALUES = 1 << 24
"""Of a tensor: 128 MiB as float64."""
MAX_TENSORS = 1 << 14
"""Of a request: a column of a table is one."""
MAX_STRINGS = 1 << 20
"""Of a tensor: each takes about 60 bytes as an object, beside its characters."""

_MAX_DIMENSIONS = 2
_LENGTH = struct.Struct("<I")


class Datatype(NamedTuple):
    """A type of values.

    Attributes:
        dtype: of raw contents; None for strings.
        field: the field of InferTensorContents that has its values; "" if they are always raw.
    """

    dtype: np.dtype[Any] | None
    field: str

    def holds(self, values: NDArray[Any]) -> bool:
        """Tell whether values are within the type: int_contents may have any of 32 bits."""
        if self.dtype is None or self.dtype.kind not in "biu" or not values.size:
            return True
        least, most = (0, 1) if self.dtype.kind == "b" else (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
        return bool(least <= values.min() and values.max() <= most)


BYTES = "BYTES"
DATATYPES = {
    "BOOL": Datatype(np.dtype("?"), "bool_contents"),
    "INT8": Datatype(np.dtype("i1"), "int_contents"),
    "INT16": Datatype(np.dtype("<i2"), "int_contents"),
    "INT32": Datatype(np.dtype("<i4"), "int_contents"),
    "INT64": Datatype(np.dtype("<i8"), "int64_contents"),
    "UINT8": Datatype(np.dtype("u1"), "uint_contents"),
    "UINT16": Datatype(np.dtype("<u2"), "uint_contents"),
    "UINT32": Datatype(np.dtype("<u4"), "uint_contents"),
    "UINT64": Datatype(np.dtype("<u8"), "uint64_contents"),
    "FP16": Datatype(np.dtype("<f2"), ""),
    "BF16": Datatype(np.dtype("<u2"), ""),
    "FP32": Datatype(np.dtype("<f4"), "fp32_contents"),
    "FP64": Datatype(np.dtype("<f8"), "fp64_contents"),
    BYTES: Datatype(None, "bytes_contents"),
}


@dataclass(frozen=True)
class Tensor:
    """A tensor with its values.

    Attributes:
        name: of the tensor.
        datatype: one of DATATYPES.
        values: numbers, or objects, each a string or None, in the tensor's shape.
    """

    name: str
    datatype: str
    values: NDArray[Any]


@dataclass(frozen=True)
class TensorHead:
    """What is said of a tensor beside its contents.

    Raises:
        InputError: there is no such type, or no tensor of that shape is taken.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.datatype not in DATATYPES:
            raise self.fault(f"datatype {quoted(self.datatype)} is not one of {', '.join(DATATYPES)}")
        if not 1 <= len(self.shape) <= _MAX_DIMENSIONS or min(self.shape) < 0:
            raise self.fault("its shape is not [rows] or [rows, columns]")
        most = MAX_STRINGS if self.datatype == BYTES else MAX_VALUES
        if max(self.count, *self.shape) > most:  # a size of 0 beside a giant one makes no array either
            raise self.fault(f"it has more than {most:,} values: send fewer rows at once")

    @property
    def count(self) -> int:
        """The number of values that the shape asks for."""
        return math.prod(self.shape)

    @property
    def row_size(self) -> int:
        """The number of values of a row."""
        return math.prod(self.shape[1:])

    @property
    def is_float(self) -> bool:
        """Whether its values may be between whole numbers."""
        return self.datatype in ("FP16", "BF16", "FP32", "FP64")

    def fault(self, why: str) -> InputError:
        """Return the error that says what is wrong with the tensor."""
        return InputError(f"input {quoted(self.name)}: {why}")

    def with_bytes(self, data: bytes | memoryview) -> Tensor:
        """Return the tensor with raw contents.

        Raises:
            InputError: they are not as long as the shape says, or strings are malformed.
        """
        dtype = DATATYPES[self.datatype].dtype
        if dtype is None:
            return self._with(self._strings(data))
        if len(data) != self.count * dtype.itemsize:
            raise self.fault(
                f"{len(data):,} bytes contradict its shape, which asks for {self.count * dtype.itemsize:,}"
            )
        values = np.frombuffer(data, dtype)
        if self.datatype == "BOOL" and values.size and values.view(np.uint8).max() > 1:
            raise self.fault("a BOOL is a byte that is 0 or 1")
        if self.datatype == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return self._with(values)

    def with_values(self, values: Iterable[Any], count: int) -> Tensor:
        """Return the tensor with so many values of its field of InferTensorContents.

        Raises:
            InputError: they are fewer or more than the shape says, or not of the type.
        """
        self._check_count(count)
        dtype = DATATYPES[self.datatype].dtype
        if dtype is None:
            return self._with(_objects([self._string(value) for value in values]))
        # int_contents and uint_contents have values of 32 bits, whatever the type.
        wide = np.dtype(np.int64) if dtype.kind in "iu" and dtype.itemsize < 8 else dtype
        return self._within(np.fromiter(values, wide, count))

    def with_json(self, data: Any) -> Tensor:
        """Return the tensor with the values of a list, flat or nested. null is a missing value.

        Raises:
            InputError: they are fewer or more than the shape says, or not of the type.
        """
        flat = self._flat(data)
        self._check_count(len(flat))
        if self.datatype == BYTES:
            if not all(value is None or isinstance(value, str) for value in flat):
                raise self.fault("a value of BYTES is a string or null")
            return self._with(_objects(flat))
        try:
            values = floats(flat) if flat else np.empty(0)
        except InputError:
            raise self.fault("a value is no number") from None
        if not self.is_float and (values != np.rint(values)).any():
            raise self.fault(f"a value is no {self.datatype}")
        return self._within(values)

    def _flat(self, data: Any) -> list[Any]:
        """Return the values of a list, or of a list with a list for each row."""
        if not isinstance(data, list):
            raise self.fault("its data is not a list, or a list of lists")
        if not any(isinstance(value, list) for value in data):
            return data
        if len(data) != self.shape[0] or any(not isinstance(row, list) or len(row) != self.row_size for row in data):
            raise self.fault("its lists contradict its shape: send one for each row, or all values in one list")
        flat = [value for row in data for value in row]
        if any(isinstance(value, list) for value in flat):
            raise self.fault("its data is nested more than once")
        return flat

    def _within(self, values: NDArray[Any]) -> Tensor:
        if not self.is_float and not DATATYPES[self.datatype].holds(values):
            raise self.fault(f"a value is no {self.datatype}")
        return self._with(values)

    def _with(self, values: NDArray[Any]) -> Tensor:
        return Tensor(self.name, self.datatype, values.reshape(self.shape))

    def _check_count(self, count: int) -> None:
        if count != self.count:
            raise self.fault(f"{count:,} values contradict its shape, which asks for {self.count:,}")

    def _string(self, data: bytes) -> str:
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError:
            raise self.fault("a string is not in UTF-8") from None

    def _strings(self, data: bytes | memoryview) -> NDArray[np.object_]:
        """Read strings, each after its length."""
        view, start, strings = memoryview(data), 0, list[str]()
        if len(view) < _LENGTH.size * self.count:
            raise self.fault("its strings are cut short")
        for _ in range(self.count):
            begin = start + _LENGTH.size
            if begin > len(view):
                raise self.fault("its strings are cut short")
            start = begin + _LENGTH.unpack_from(view, begin - _LENGTH.size)[0]
            if start > len(view):
                raise self.fault("its strings are cut short")
            strings.append(self._string(view[begin:start]))  # type: ignore[arg-type]
        if start != len(view):
            raise self.fault("there are bytes after its last string")
        return _objects(strings)


def to_bytes(tensor: Tensor) -> bytes:
    """Return the raw contents of a tensor."""
    dtype = DATATYPES[tensor.datatype].dtype
    if dtype is None:
        encoded = (value.encode() for value in tensor.values.ravel().tolist())
        return b"".join(_LENGTH.pack(len(value)) + value for value in encoded)
    return np.ascontiguousarray(tensor.values, dtype).tobytes()


def to_list(tensor: Tensor) -> list[Any]:
    """Return the values of a tensor, row by row: numbers, booleans or strings."""
    values: list[Any] = tensor.values.ravel().tolist()
    return values


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    array = np.empty(len(values), object)
    array[:] = values
    return array

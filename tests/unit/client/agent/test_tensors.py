"""Tensors: values survive the way to bytes, lists and JSON, and contents fit their shapes."""

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sealserve.agent.tensors import DATATYPES, MAX_STRINGS, MAX_VALUES, Tensor, TensorHead, to_bytes, to_list
from sealserve.errors import InputError

NUMERIC = [name for name, datatype in DATATYPES.items() if datatype.dtype is not None and name != "BF16"]
WITH_FIELD = [name for name in NUMERIC if DATATYPES[name].field]
SHAPES = npst.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5)


@pytest.mark.parametrize("name", NUMERIC)
@given(data=st.data())
def test_numbers_survive_as_bytes_and_as_values(name: str, data: st.DataObject) -> None:
    dtype = DATATYPES[name].dtype
    assert dtype is not None
    values = data.draw(npst.arrays(dtype, SHAPES))
    head, tensor = TensorHead("x", name, values.shape), Tensor("x", name, values)
    np.testing.assert_array_equal(head.with_bytes(to_bytes(tensor)).values, values)
    listed = to_list(tensor)
    if DATATYPES[name].field:
        np.testing.assert_array_equal(head.with_values(listed, len(listed)).values, values)


@given(values=st.lists(st.text(), max_size=5))
def test_strings_survive_as_bytes_and_as_values(values: list[str]) -> None:
    usable = [value for value in values if value.isprintable()]  # surrogates have no UTF-8
    array = np.empty(len(usable), object)
    array[:] = usable
    head, tensor = TensorHead("x", "BYTES", (len(usable),)), Tensor("x", "BYTES", array)
    assert head.with_bytes(to_bytes(tensor)).values.tolist() == usable
    assert head.with_values([value.encode() for value in usable], len(usable)).values.tolist() == usable
    assert head.with_json(json.loads(json.dumps(usable))).values.tolist() == usable


def test_bf16_is_the_upper_half_of_a_float32() -> None:
    floats = np.array([1.0, -2.5, 0.0, 96.0], "<f4")
    upper = (floats.view("<u4") >> 16).astype("<u2")
    assert TensorHead("x", "BF16", (4,)).with_bytes(upper.tobytes()).values.tolist() == floats.tolist()


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [1.0, 2.0, 3.0, 4.0]])
def test_json_may_be_flat_or_nested(data: Any) -> None:
    for name in ("FP64", "INT8", "UINT64", "FP16"):
        assert TensorHead("x", name, (2, 2)).with_json(data).values.tolist() == [[1, 2], [3, 4]]


def test_null_is_a_missing_value() -> None:
    values = TensorHead("x", "FP64", (2,)).with_json([None, 1]).values
    assert math.isnan(values[0])
    assert TensorHead("x", "BYTES", (2,)).with_json([None, "a"]).values.tolist() == [None, "a"]


@pytest.mark.parametrize(
    ("datatype", "shape"),
    [
        ("FP65", (1,)),
        ("", (1,)),
        ("FP64", ()),
        ("FP64", (1, 1, 1)),
        ("FP64", (-1, 2)),
        ("FP64", (-1, -1)),
        ("FP64", (1 << 62, 1 << 62)),
        ("UINT8", (MAX_VALUES + 1,)),
        ("BYTES", (MAX_STRINGS + 1,)),
    ],
)
def test_no_tensor_is_made_of_a_senseless_type_or_shape(datatype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="input 'x'"):
        TensorHead("x", datatype, shape)


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("surplus", [-1, 1])
def test_bytes_that_contradict_the_shape_are_refused(name: str, surplus: int) -> None:
    dtype = DATATYPES[name].dtype
    assert dtype is not None
    with pytest.raises(InputError, match="contradict its shape"):
        TensorHead("x", name, (2, 3)).with_bytes(b"\0" * (6 * dtype.itemsize + surplus))


@pytest.mark.parametrize("count", [5, 7])
def test_values_that_contradict_the_shape_are_refused(count: int) -> None:
    head = TensorHead("x", "FP64", (2, 3))
    with pytest.raises(InputError, match="contradict its shape"):
        head.with_values([0.0] * count, count)
    with pytest.raises(InputError, match="contradict its shape"):
        head.with_json([0.0] * count)


@pytest.mark.parametrize(("name", "value"), [("INT8", 128), ("INT16", -40_000), ("UINT8", 256), ("UINT16", 70_000)])
def test_values_beyond_the_type_are_refused(name: str, value: int) -> None:
    head = TensorHead("x", name, (1,))
    with pytest.raises(InputError, match="is no"):
        head.with_values([value], 1)
    with pytest.raises(InputError, match="is no"):
        head.with_json([value])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("INT32", [1.5]),
        ("INT32", [None]),
        ("BOOL", [2]),
        ("FP64", ["1.5"]),
        ("FP64", [{}]),
        ("FP64", [[[1.0]]]),
        ("FP64", [[1.0], 2.0]),
        ("FP64", {"0": 1.0}),
        ("FP64", None),
        ("BYTES", [1]),
        ("BYTES", [b"x"]),
    ],
)
def test_json_of_another_type_is_refused(name: str, data: Any) -> None:
    with pytest.raises(InputError):
        TensorHead("x", name, (1,)).with_json(data)


def string(text: bytes, length: int | None = None) -> bytes:
    """A string of raw contents, which may lie about its length."""
    return struct.pack("<I", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\0",
        string(b"a"),
        string(b"a") + string(b"b", 2),
        string(b"a", (1 << 32) - 1) + string(b"b"),
        string(b"a") + string(b"b") + b"\0",
        string(b"a") + string(b"\xff"),
    ],
)
def test_malformed_strings_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        TensorHead("x", "BYTES", (2,)).with_bytes(data)


def test_a_bool_is_a_byte_of_0_or_1() -> None:
    with pytest.raises(InputError, match="0 or 1"):
        TensorHead("x", "BOOL", (2,)).with_bytes(b"\1\2")


@given(data=st.binary(max_size=40), count=st.integers(0, 4))
def test_any_bytes_are_strings_or_refused(data: bytes, count: int) -> None:
    try:
        tensor = TensorHead("x", "BYTES", (count,)).with_bytes(data)
    except InputError:
        return
    assert to_bytes(tensor) == data


def test_no_text_holds_a_value() -> None:
    for name, data in (("FP64", ["secret"]), ("INT8", [7777]), ("INT8", [7777.5]), ("BYTES", [7777])):
        with pytest.raises(InputError) as refused:
            TensorHead("x", name, (1,)).with_json(data)
        assert "secret" not in str(refused.value)
        assert "7777" not in str(refused.value)

"""Arrays are read if they hold what their header says, and nothing else."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

from sealserve.row_files.npy import read_array


def saved(values: Any, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    npy.write_array(file, np.asanyarray(values), version=version)
    return file.getvalue()


def header(shape: Any, dtype: str, **more: Any) -> bytes:
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype, **more})
    return file.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize(
    "values",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
        np.array(0.5),
        np.empty((0, 2)),
        np.array(["a", "bcd"]),
        np.array([True, False]),
        np.arange(3, dtype=">i2"),
    ],
    ids=lambda values: f"{values.dtype} {values.shape}",
)
def test_an_array_comes_out_as_it_went_in(values: Any, version: tuple[int, int]) -> None:
    found = read_array(saved(values, version))
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)
    assert found.shape == values.shape


@pytest.mark.parametrize(
    "data",
    [
        saved([1.0, 2.0])[:-1],
        saved([1.0, 2.0]) + b"\0",
        header((1 << 60,), "<f8"),
        header((1 << 62, 1 << 62), "<f8"),
        header((-1,), "<f8"),
        header((-1, -2), "<f8") + bytes(16),
        header((1 << 40,), "<U0"),
        header((1 << 40,), "|V0"),
        header((1,), "|O") + b"\x80\x04N.",
        header((), "|O"),
        b"\x93NUMPY\x03\x00" + saved([1.0])[8:],
        b"\x93NUMPY\x01\x00\xff\xff" + bytes(65_535),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"\x93NUMPY",
        b"PK",
        b"",
    ],
    ids=range(16),
)
def test_another_array_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # NumPy has a text for each
        read_array(data)

"""Array files: NumPy's .npy, which is memory-mapped, and .npz."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import FeatureCountError, InputError
from sealserve.protocol.tables import check_numbers
from sealserve.protocol.text import printable_list
from sealserve.row_files.columns import Columns
from sealserve.row_files.npy import read_array

_ROWS = "X"  # which array of several has the rows
_MOST_LISTED = 10


def read_npy(source: Path | BinaryIO, columns: Columns) -> NDArray[Any]:
    """Read the rows of a .npy file, of any type of number; a path is memory-mapped.

    Raises:
        InputError: the file holds no two-dimensional array of numbers, or its columns do not fit.
    """
    with _readable("a .npy file, as numpy.save writes it"):
        if isinstance(source, Path):
            rows: NDArray[Any] = np.lib.format.open_memmap(source, mode="r")
        else:
            rows = read_array(source.read())
    return _chosen(rows, columns)


def read_npz(source: Path | BinaryIO, columns: Columns) -> NDArray[Any]:
    """Read the rows of a .npz file: its only array, or the one that is named X.

    Raises:
        InputError: there is no such array, it is no two-dimensional array of numbers, or its
            columns do not fit.
    """
    with ExitStack() as stack:
        file = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
        with _readable("a .npz file, as numpy.savez writes it"):
            archive = stack.enter_context(ZipFile(file))
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        if len(members) != 1 and _ROWS not in members:
            listed = printable_list(tuple(members), _MOST_LISTED) or "none"
            raise InputError(f"the file has the arrays {listed}: name that of the rows {_ROWS}")
        with _readable("a .npz file with an array of numbers"):
            rows = read_array(_content(archive, members.get(_ROWS) or next(iter(members.values()))))
    return _chosen(rows, columns)


def _content(archive: ZipFile, name: str) -> bytes:
    """Read a member. No more is inflated than the archive's directory says."""
    with archive.open(name) as member:
        return member.read(archive.getinfo(name).file_size)


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Turn errors of a damaged file into an InputError.

    zipfile, zlib and NumPy each have errors of their own. NumPy's text advises to allow pickles.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.filename:  # the file cannot be opened
            raise
        raise InputError(f"the file is not {what}") from error


def _chosen(rows: NDArray[Any], columns: Columns) -> NDArray[Any]:
    check_numbers(rows.dtype)
    if rows.ndim != 2:
        advice = ": save a single row x as x.reshape(1, -1)" if rows.ndim == 1 else ""
        raise FeatureCountError(f"the array has the shape {rows.shape}, not (rows, columns){advice}")
    positions = columns.positions((), rows.shape[1])
    return rows if positions == list(range(rows.shape[1])) else rows[:, positions]

"""Array files: NumPy's .npy, which is memory-mapped, and .npz."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from sealserve.errors import FeatureCountError, InputError
from sealserve.protocol.tables import check_numbers
from sealserve.row_files.columns import Columns

_ROWS = "X"  # which array of several has the rows


def read_npy(source: Path | BinaryIO, columns: Columns) -> NDArray[Any]:
    """Read the rows of a .npy file, of any type of number; a path is memory-mapped.

    Raises:
        InputError: the file holds no two-dimensional array of numbers, or its columns do not fit.
    """
    with _readable("a .npy file, as numpy.save writes it"):
        if isinstance(source, Path):
            rows: NDArray[Any] = np.lib.format.open_memmap(source, mode="r")
        else:
            rows = np.lib.format.read_array(source, allow_pickle=False)
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
            archive = stack.enter_context(NpzFile(file, allow_pickle=False))
            names = archive.files
        if len(names) != 1 and _ROWS not in names:
            raise InputError(f"the file has the arrays {', '.join(names) or 'none'}: name that of the rows {_ROWS}")
        with _readable("a .npz file with an array of numbers"):
            rows = archive[names[0] if len(names) == 1 else _ROWS]
    return _chosen(rows, columns)


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
    if not isinstance(rows, np.ndarray):  # a member of an archive that is no array
        raise InputError("the file holds no array of numbers")
    check_numbers(rows.dtype)
    if rows.ndim != 2:
        advice = ": save a single row x as x.reshape(1, -1)" if rows.ndim == 1 else ""
        raise FeatureCountError(f"the array has the shape {rows.shape}, not (rows, columns){advice}")
    positions = columns.positions((), rows.shape[1])
    return rows if positions == list(range(rows.shape[1])) else rows[:, positions]

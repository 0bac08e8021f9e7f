"""Array files: NumPy's .npy, which is memory-mapped, and .npz."""

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
    rows = _load(source, "a .npy file, as numpy.save writes it")
    if isinstance(rows, NpzFile):
        rows.close()
        raise InputError("the file is not a .npy file but an archive: give it the suffix .npz")
    return _chosen(rows, columns)


def read_npz(source: Path | BinaryIO, columns: Columns) -> NDArray[Any]:
    """Read the rows of a .npz file: its only array, or the one that is named X.

    Raises:
        InputError: there is no such array, it is no two-dimensional array of numbers, or its
            columns do not fit.
    """
    what = "a .npz file, as numpy.savez writes it"
    archive = _load(source, what)
    if not isinstance(archive, NpzFile):
        raise InputError("the file is not a .npz file but one array: give it the suffix .npy")
    with archive:
        names = archive.files
        if len(names) != 1 and _ROWS not in names:
            raise InputError(
                f"the file has the arrays {', '.join(names) or 'none'}: name the one with the rows {_ROWS}"
            )
        try:
            rows = archive[names[0] if len(names) == 1 else _ROWS]
        except Exception as error:  # zipfile, zlib and NumPy each have their own for a damaged file
            raise InputError(f"the file is not {what}") from error
    return _chosen(rows, columns)


def _load(source: Path | BinaryIO, what: str) -> Any:
    """Read a file of NumPy's. The error has no text of NumPy's, which advises to allow pickles."""
    try:
        return np.load(source, mmap_mode="r" if isinstance(source, Path) else None, allow_pickle=False)
    except Exception as error:
        if isinstance(error, OSError) and error.filename:  # it cannot be opened
            raise
        raise InputError(f"the file is not {what}") from error


def _chosen(rows: NDArray[Any], columns: Columns) -> NDArray[Any]:
    check_numbers(rows.dtype)
    if rows.ndim != 2:
        advice = ": save a single row x as x.reshape(1, -1)" if rows.ndim == 1 else ""
        raise FeatureCountError(f"the array has the shape {rows.shape}, not (rows, columns){advice}")
    positions = columns.positions((), rows.shape[1])
    return rows if positions == list(range(rows.shape[1])) else rows[:, positions]

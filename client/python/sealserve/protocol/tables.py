"""Tables: what users hand in as rows, read into float64.

A table is an array, a DataFrame (pandas, polars, Arrow) or a sparse matrix of SciPy. No library of
these is imported: a table is known by its attributes. Values are real numbers, or missing, or they
are refused. Nothing else is cast: an imaginary part would be lost, a date would be scored.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import FeatureNameError, InputError
from sealserve.protocol.text import printable_list

SHOWN_NAMES = 100
"""Names of columns that an error lists."""
_NUMBERS = (int, float, np.integer, np.floating, np.bool_, Decimal, Fraction)
_MISSING = ("NoneType", "NAType", "NaTType", "MaskedConstant")  # of Python, pandas and NumPy
_KINDS = {"c": "complex numbers", "M": "dates", "m": "time differences", "S": "bytes", "U": "text", "V": "records"}
_MAX_DENSE_BYTES = 1 << 30
_TOO_LARGE = "a value is too large, or no number: it is beyond float64"


def is_table(X: Any) -> bool:
    """Return whether X has rows and columns, so that it can be read in blocks of rows."""
    shape = getattr(X, "shape", None)
    return isinstance(shape, tuple) and len(shape) == 2


def is_sparse(X: Any) -> bool:
    """Return whether X is a sparse matrix or array of SciPy."""
    return hasattr(X, "tocsr") and hasattr(X, "toarray")


def row_blocks(table: Any) -> Callable[[int, int], Any]:
    """Return a function that returns rows start .. stop - 1 of a table, as a table."""
    if is_sparse(table):
        csr = table.tocsr()  # not every sparse format can be sliced
        return lambda start, stop: csr[start:stop]
    if hasattr(table, "column_names") and hasattr(table, "slice"):  # Arrow: [] chooses columns
        return lambda start, stop: table.slice(start, stop - start)
    rows = getattr(table, "iloc", table)  # pandas: [] may go by the labels of the rows
    return lambda start, stop: rows[start:stop]


def column_names(X: Any) -> tuple[str, ...]:
    """Return the names of a table's columns; empty if it has none."""
    names = getattr(X, "column_names", None)
    return tuple(map(str, getattr(X, "columns", ()) if names is None else names))


def check_numbers(dtype: np.dtype[Any]) -> None:
    """Check that an array's type is one of real numbers, or of objects, which may be numbers.

    Raises:
        InputError: it is not.
    """
    if dtype.kind not in "biufO":
        found = _KINDS.get(dtype.kind, str(dtype))
        raise InputError(f"the rows hold {found}, not numbers: pass the numbers that the model was trained on")


def floats(X: Any, names: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return what a user hands in as an array of float64, in its shape. A missing value is NaN.

    Args:
        X: a table, an array of another shape, or a nested sequence. In a sequence, a Series is
            matched by its labels, if `names` are given.
        names: of the model's columns, if it has any.

    Raises:
        FeatureNameError: a Series lacks a label, or has it twice.
        InputError: a value is no real number or is too large, rows have different lengths, or a
            sparse matrix is too large for an array.
    """
    if is_sparse(X):
        values = _dense(X)
    elif isinstance(X, np.ma.MaskedArray):
        values = _unmasked(X)
    else:
        try:
            values = np.asarray([_row(row, names) for row in X] if isinstance(X, list | tuple) else X)
        except OverflowError as error:
            raise InputError(_TOO_LARGE) from error
        except InputError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError("the rows must be a two-dimensional array of numbers, all of one length") from error
    check_numbers(values.dtype)
    if values.dtype.kind == "O":
        return _floats_of_objects(values, column_names(X) or tuple(names))
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinite, and is refused as such
        return values.astype(np.float64, copy=False)


def _dense(matrix: Any) -> NDArray[Any]:
    check_numbers(matrix.dtype)
    row_count, width = matrix.shape
    if (byte_count := 8 * row_count * width) > _MAX_DENSE_BYTES:
        raise InputError(
            f"the sparse matrix would take {byte_count / 2**30:,.1f} GiB as an array: "
            "pass it to stream, which reads it in blocks of rows"
        )
    dense: NDArray[Any] = matrix.toarray()
    return dense


def _unmasked(values: "np.ma.MaskedArray[Any, Any]") -> NDArray[Any]:
    """Return masked values as NaN: np.asarray would return what is under the mask."""
    check_numbers(values.dtype)
    return np.where(np.ma.getmaskarray(values), np.nan, values.data)


def _row(row: Any, names: Sequence[str]) -> Any:
    """Return a row of a sequence as np.asarray takes it: a Series in the order of the columns."""
    if isinstance(row, np.ma.MaskedArray):
        return _unmasked(row)
    if not (names and getattr(row, "ndim", 0) == 1 and hasattr(row, "iloc")):
        return row
    values = floats(row.to_numpy())  # all of them, before the service says which it wants
    labels = list(map(str, row.index))
    if any(labels.count(name) != 1 for name in names):
        needed = printable_list(tuple(names), SHOWN_NAMES)
        raise FeatureNameError(f"the labels of a Series must be, each once: {needed}")
    return values[[labels.index(name) for name in names]]


def _floats_of_objects(values: NDArray[Any], names: Sequence[str]) -> NDArray[np.float64]:
    kinds = set(map(type, values.ravel().tolist()))
    if missing := {kind for kind in kinds if kind.__name__ in _MISSING}:
        is_missing = np.array([type(value) in missing for value in values.ravel().tolist()], np.bool_)
        values = np.where(is_missing.reshape(values.shape), np.nan, values)
    if not all(issubclass(kind, _NUMBERS) for kind in kinds - missing):
        position, value = next(item for item in np.ndenumerate(values) if not isinstance(item[1], _NUMBERS))
        place, kind = _place(position, values.shape, names), type(value).__name__
        raise InputError(f"{place} is of type {kind}, not a number: pass the numbers that the model was trained on")
    try:
        return values.astype(np.float64)
    except (OverflowError, ValueError) as error:  # 10**400; the decimal sNaN
        raise InputError(_TOO_LARGE) from error


def _place(position: Sequence[int], shape: tuple[int, ...], names: Sequence[str]) -> str:
    """Return a position in words: its row, unless there is one only, and its column."""
    if len(position) != 2:
        return "a value"
    row, column = position
    feature = f"column {names[column]!r}" if len(names) == shape[1] else f"feature {column}"
    return feature if shape[0] == 1 else f"row {row}, {feature}"

"""Tables: what users hand in as rows, read into float64.

A table is an array, a DataFrame (pandas, polars, Arrow) or a sparse matrix of SciPy. No library of
these is imported: a table is known by its attributes. Values are real numbers, or missing, or they
are refused. Nothing else is cast: an imaginary part would be lost, a date would be scored.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import FeatureNameError, InputError
from sealserve.protocol.faults import Faults
from sealserve.protocol.text import difference, feature_in_words, quoted

_SHOWN = 5  # columns that an error names
_NUMBERS = (int, float, np.integer, np.floating, np.bool_, Decimal, Fraction)
_MISSING = ("NoneType", "NAType", "NaTType", "MaskedConstant")  # of Python, pandas and NumPy
_KINDS = {"c": "complex numbers", "M": "dates", "m": "time differences", "S": "bytes", "U": "text", "V": "records"}
_MAX_DENSE_BYTES = 1 << 30
_DIMENSIONS = 2
_NO_ROWS = "the rows must be a two-dimensional array of numbers, all of one length"
ADVICE = "pass the numbers that the model was trained on"


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
    if not _may_be_numbers(dtype):
        raise InputError(f"the rows hold {_KINDS.get(dtype.kind, str(dtype))}, not numbers: {ADVICE}")


def _may_be_numbers(dtype: Any) -> bool:
    return getattr(dtype, "kind", "O") in "biufO"  # types of other libraries than NumPy have no kind


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
    own_names = column_names(X)
    words = partial(_column_in_words, own_names or tuple(names))
    if is_sparse(X):
        return _floats(_dense(X), words)
    if isinstance(X, np.ma.MaskedArray):
        return _floats(_unmasked(X), words)
    if isinstance(X, list | tuple):
        return _floats(_stacked([_row(row, names) for row in X], words), words)
    try:
        values = np.asarray(X)
    except (OverflowError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(_NO_ROWS) from error
    if own_names and not _may_be_numbers(values.dtype):
        _check_columns(getattr(X, "dtypes", ()), words)
    return _floats(values, words)


def _floats(values: NDArray[Any], words: Callable[[int], str]) -> NDArray[np.float64]:
    """Return an array of any type as float64, if its values are numbers.

    Args:
        values: of any shape.
        words: returns a column in words.

    Raises:
        InputError: a value is no real number, or too large.
    """
    check_numbers(values.dtype)
    if values.dtype.kind != "O":
        with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinite, and is refused as such
            return values.astype(np.float64, copy=False)
    kinds = set(map(type, values.ravel().tolist()))
    if missing := {kind for kind in kinds if kind.__name__ in _MISSING}:
        is_missing = np.array([type(value) in missing for value in values.ravel().tolist()], np.bool_)
        values = np.where(is_missing.reshape(values.shape), np.nan, values)
    try:
        if all(issubclass(kind, _NUMBERS) for kind in kinds - missing):
            return values.astype(np.float64)
    except (OverflowError, ValueError):
        pass
    raise InputError(f"{_faults_in_words(values, words)}: {ADVICE}")


def _stacked(rows: list[Any], words: Callable[[int], str]) -> NDArray[Any]:
    """Return a sequence of rows as an array of numbers, or of objects.

    Raises:
        InputError: a value is no real number or is too large, or rows have different lengths.
    """
    fault: Exception
    try:
        values = np.asarray(rows)
        check_numbers(values.dtype)
    except (InputError, OverflowError, TypeError, ValueError, RuntimeError) as error:
        fault = error
    else:
        return values
    # NumPy has made all values text if one is, or has said nothing of where it is. Objects are
    # looked at, and no more: of the nanoseconds of dates NumPy makes integers.
    text = ""
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
        objects = np.asarray(rows, object)
        text = _faults_in_words(objects, words) if objects.ndim == _DIMENSIONS else ""
    if text:
        raise InputError(f"{text}: {ADVICE}") from fault
    raise fault if isinstance(fault, InputError) else InputError(_NO_ROWS) from fault


def _check_columns(dtypes: Iterable[Any], words: Callable[[int], str]) -> None:
    """Check the types of a table's columns, if it has a type for each.

    Raises:
        InputError: they are none of numbers. The text names them.
    """
    wrong = [(column, dtype) for column, dtype in enumerate(dtypes) if not _may_be_numbers(dtype)]
    if wrong:
        named = [f"{words(column)} holds {_KINDS.get(dtype.kind, str(dtype))}" for column, dtype in wrong[:_SHOWN]]
        if len(wrong) > _SHOWN:
            named.append(f"and {len(wrong) - _SHOWN:,} more")
        raise InputError(f"{', '.join(named)}, not numbers: {ADVICE}")


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
    labels = list(map(str, row.index))
    # All values, before the service says which it wants.
    values = _floats(row.to_numpy()[None], lambda column: _label_in_words(labels[column], names))[0]
    wanted = set(names)
    if wrong := difference(sorted(names), sorted(label for label in labels if label in wanted)):
        raise FeatureNameError(f"the labels of a Series must be the model's columns, each once; {wrong}")
    return values[[labels.index(name) for name in names]]


def _faults_in_words(values: NDArray[Any], words: Callable[[int], str]) -> str:
    """Name the values of an array of objects that are no numbers; "" if there are none."""
    if values.ndim != _DIMENSIONS:
        return faults_of_values(values.ravel().tolist())
    faults = Faults("rows" if len(values) > 1 else "")
    for position, value in np.ndenumerate(values):
        if fault := _fault(value):
            faults.add(position[0], words(position[1]), fault)
    return faults.in_words()


def faults_of_values(values: Sequence[Any], noun: str = "") -> str:
    """Name the values of one column that are no numbers; "" if there are none.

    Args:
        values: objects.
        noun: what the values' places are called, such as "rows"; "" if they mean nothing.
    """
    faults = Faults(noun)
    for position, value in enumerate(values):
        if fault := _fault(value):
            faults.add(position, "a value", fault)
    return faults.in_words()


def _fault(value: Any) -> str:
    """Say why a value is no number; "" if it is one, or is missing."""
    if type(value).__name__ in _MISSING:
        return ""
    if not isinstance(value, _NUMBERS):
        return f"is of type {type(value).__name__}, not a number"
    try:
        float(value)
    except (OverflowError, ValueError):  # 10**400; the decimal sNaN
        return "is too large, or no number: it is beyond float64"
    return ""


def _column_in_words(names: Sequence[str], column: int) -> str:
    return feature_in_words(column, names[column] if column < len(names) else None)


def _label_in_words(label: str, names: Sequence[str]) -> str:
    """Return the label of a Series in words: its place in the Series says nothing."""
    return feature_in_words(list(names).index(label), label) if label in names else f"column {quoted(label)}"
